"""Attention kernels that libraries hold, as data: tiles, what shares them, how one query is split over the units.

The constants mean the same for all of them. A block of threads keeps ``rows`` queries on chip and walks the keys
``keys`` at a time; how long one such step takes follows from the peak of the matrix units and from the exponentials of
the softmax, which run beside it on 16 lanes of a unit. Where the constants of a record come from stands beside it;
``benchmarks/fit_attention.py`` reproduces them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

__all__ = [
    "FLASH_2",
    "FLASH_2_ADA",
    "FLASH_2_HOPPER",
    "FLASH_2_PAGED",
    "FLASH_2_PAGED_ADA",
    "FLASH_3",
    "FLASH_3_MMA",
    "FMHA",
    "AttentionKernels",
    "AttentionTiles",
    "Splits",
]

#: (widest head, queries, keys) [elements] of the tiles of a kernel, in rising order of the width it is compiled for.
AttentionTiles = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """How keys are split over blocks of threads where there are too few of them to fill the units (flash decoding).

    ``blocks_a_unit`` is how many blocks of threads a unit is taken to hold, ``fewest_steps`` the steps over the keys
    up to which nothing is split, ``most`` the largest number of parts. ``shared_only``: only heads that share keys and
    values are split. ``part_cycles`` is what one part more takes in the kernel that adds them up [clock cycles].
    """

    blocks_a_unit: int = 1
    fewest_steps: int = 0
    most: int = 128
    shared_only: bool = False
    part_cycles: float = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionKernels:
    """Attention whose scores stay on chip.

    ``name``        the algorithm's, as plans show it
    ``tiles``, ``causal_tiles``   by width of a head; the second where a causal mask chooses others
    ``decode_rows`` queries of a tile where only one is asked for; None: as ``tiles``
    ``packs``       whether queries of heads that share keys and values lie in one tile: always, where there is one
                    query, never
    ``splits``      how one query is split over the units; None: it is not
    ``efficiency``  share of the matrix peak in the two products of a step [1]
    ``exponentials``   time of the softmax of a step over that of its exponentials alone, 16 a clock and unit [1];
                    below 1 where it is hidden behind the products of another tile
    ``block_cycles``   a block of threads beside its steps: loading queries, writing results [clock cycles]
    ``alone``       time of a step where a unit has one block of threads, over its share where it has several [1]
    ``tail``        what the last blocks of threads add while other units idle, over the longest [1]
    ``start``       fixed time over that of a plain kernel [1]
    ``dram_share``  DRAM rate over that of long element-wise kernels [1]
    """

    name: str
    tiles: AttentionTiles
    causal_tiles: AttentionTiles = ()
    decode_rows: int | None = None
    packs: Literal["always", "one query", "never"] = "never"
    splits: Splits | None = None
    efficiency: float
    exponentials: float
    block_cycles: float
    alone: float
    tail: float
    start: float = 1.0
    dram_share: float = 1.0

    def tile(self, width: int, *, causal: bool = False, one_query: bool = False) -> tuple[int, int, int]:
        """(width that is computed, queries, keys) of the kernel for heads of ``width`` [elements].

        >>> FLASH_2.tile(72)
        (96, 128, 64)
        """
        tiles = self.causal_tiles if causal and self.causal_tiles else self.tiles
        padded, rows, keys = next((tile for tile in tiles if width <= tile[0]), (width, *tiles[-1][1:]))
        return padded, (self.decode_rows or rows) if one_query else rows, keys


#: FlashAttention 2 (Dao 2023, arXiv:2307.08691) as PyTorch ships it, with the tiles of its kernels for compute
#: capability 8.x. ``efficiency`` and ``exponentials`` from the paper's figures for the A100 (227 and 190 TFLOP/s at
#: heads of 128 and 64, without a mask); the rest from the same kernels on Ada.
FLASH_2 = AttentionKernels(
    name="flash_attention",
    tiles=((32, 128, 128), (64, 128, 128), (96, 128, 64), (128, 128, 32), (160, 128, 32), (192, 64, 64), (256, 64, 64)),
    causal_tiles=(
        (32, 128, 128), (64, 128, 128), (96, 64, 64), (128, 64, 64), (160, 64, 64), (192, 64, 64), (256, 64, 64)
    ),
    packs="one query",
    splits=Splits(blocks_a_unit=2, part_cycles=250.0),
    efficiency=0.88,
    exponentials=1.0,
    block_cycles=1500,
    alone=0.9,
    tail=0.3,
    start=1.5,
)  # fmt: skip
#: On Ada: 500 rows of vLLM's layers for images on an L40S. ``start`` holds also what the layer launches besides, which
#: no row tells apart, here and in all records that follow.
FLASH_2_ADA = replace(
    FLASH_2, efficiency=0.786, exponentials=1.43, block_cycles=1540, alone=0.92, tail=0.315, start=3.8, dram_share=0.92
)

#: On Hopper without its warp-group instructions: 35 % of the peak (Shah et al. 2024, arXiv:2407.08608, figure 5: 370
#: TFLOP/s at heads of 128).
FLASH_2_HOPPER = replace(FLASH_2, efficiency=0.44)
#: FlashAttention 2 that reads keys and values through a table of pages (vLLM): its split kernel, for any length. 500
#: rows each of prompts and of generation on the A100.
FLASH_2_PAGED = replace(
    FLASH_2,
    name="flash_attention_paged",
    tiles=((64, 64, 256), (128, 64, 128), (256, 64, 64)),
    causal_tiles=(),
    splits=Splits(blocks_a_unit=2, shared_only=True, part_cycles=200.0),
    efficiency=0.687,
    exponentials=1.02,
    block_cycles=2210,
    alone=1.13,
    tail=0.74,
    start=3.2,
    dram_share=0.935,
)

#: The same on an L40S.
FLASH_2_PAGED_ADA = replace(
    FLASH_2_PAGED,
    efficiency=0.694,
    exponentials=1.8,
    block_cycles=3510,
    alone=0.78,
    tail=0.44,
    start=3.9,
    dram_share=0.966,
)

#: FlashAttention 3 compiled for compute capability 8.0 (SGLang): it packs the heads that share keys and values.
FLASH_3_MMA = AttentionKernels(
    name="flash_attention_3_mma",
    tiles=((64, 128, 112), (128, 128, 64), (256, 128, 64)),
    packs="always",
    splits=Splits(fewest_steps=4, part_cycles=370.0),
    efficiency=0.83,
    exponentials=1.0,
    block_cycles=2470,
    alone=1.15,
    tail=0.92,
    start=2.75,
    dram_share=0.825,
)
#: FlashAttention 3 on Hopper (Shah et al. 2024): products by warp groups, whose softmax is partly hidden behind the
#: products of another group; long tiles first, so that little is left at the end. One query takes the tile of one warp
#: group. 400 rows each of prompts, generation and images on an H100.
FLASH_3 = AttentionKernels(
    name="flash_attention_3",
    tiles=((64, 192, 192), (96, 192, 144), (128, 128, 176), (192, 128, 112), (256, 128, 80)),
    causal_tiles=((64, 192, 128), (96, 192, 144), (128, 128, 128), (192, 128, 112), (256, 128, 80)),
    decode_rows=64,
    packs="always",
    splits=Splits(fewest_steps=4, part_cycles=91.0),
    efficiency=0.89,
    exponentials=0.746,
    block_cycles=4610,
    alone=0.64,
    tail=0.23,
    start=4.8,
    dram_share=0.98,
)
#: TensorRT-LLM's prompts on the A100.
FMHA = AttentionKernels(
    name="fmha",
    tiles=((128, 64, 64),),
    efficiency=0.567,
    exponentials=1.04,
    block_cycles=1360,
    alone=1.36,
    tail=1.02,
    start=3.2,
    dram_share=0.87,
)
