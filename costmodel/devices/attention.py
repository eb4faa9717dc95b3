"""Attention kernels that libraries hold, as data: tiles, what shares them, how one query is split over the units.

The constants mean the same for all of them. A block of threads keeps ``rows`` queries on chip and walks the keys
``keys`` at a time; how long one such step takes follows from the peak of the matrix units and from the exponentials of
the softmax, which run beside it on 16 lanes of a unit. Tiles and the rules of splits are those of the libraries'
sources. Numbers of records that rows have timed were fitted to one half of the shapes; ``benchmarks/fit_attention.py``
reproduces them and holds them against the other half, and widths of heads against constants fitted to other widths.
What no row has timed is said beside the record.
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
    "FLASH_2_VARLEN_ADA",
    "FLASH_3",
    "FLASH_3_MMA",
    "FMHA",
    "LATENT",
    "LATENT_ADA",
    "LATENT_HOPPER",
    "MMHA",
    "XQA",
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
    values are split. ``prompts``: more than one query is split too. ``by_sequence``: whether there is a kernel with
    splits is asked for one sequence alone, and that kernel shares its steps out over the units, the sequences counted;
    ``tiles`` are those of the kernel with splits where they are others. ``part_cycles`` is what one part more takes in
    the kernel that adds them up [clock cycles].
    """

    blocks_a_unit: int = 1
    fewest_steps: int = 0
    most: int = 128
    shared_only: bool = False
    prompts: bool = False
    by_sequence: bool = False
    tiles: AttentionTiles = ()
    part_cycles: float = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionKernels:
    """Attention whose scores stay on chip.

    ``name``        the algorithm's, as plans show it
    ``tiles``, ``causal_tiles``   by width of a head; the second where a causal mask chooses others
    ``decode_tiles``   those where only one query is asked for, if they are others
    ``row_step``    rows of a tile are as many steps of so many as there are queries to fill them; None: all
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
    ``l2_share``    rate at which keys and values come from L2 over that of a micro-benchmark's reads [1]
    ``one_block``   whether a unit holds one block of threads at a time, so that nothing hides its start and its end
    ``copies_packed``   whether queries that are packed, and their results, are copied where a view does not do
    ``values_in_keys``  whether values are the first part of the keys, and as narrow: both are read at once
    ``l2_copies``   copies of a line that L2 holds of what one unit alone reads
    """

    name: str
    tiles: AttentionTiles
    causal_tiles: AttentionTiles = ()
    decode_tiles: AttentionTiles = ()
    row_step: int | None = None
    packs: Literal["always", "one query", "never"] = "never"
    splits: Splits | None = None
    efficiency: float
    exponentials: float
    block_cycles: float
    alone: float
    tail: float
    start: float = 1.0
    dram_share: float = 1.0
    l2_share: float = 0.6
    l2_copies: int = 1
    one_block: bool = False
    copies_packed: bool = False
    values_in_keys: bool = False

    def tile(self, width: int, *, causal: bool = False, one_query: bool = False) -> tuple[int, int, int]:
        """(width that is computed, queries, keys) of the kernel for heads of ``width`` [elements].

        >>> FLASH_2.tile(72)
        (96, 128, 64)
        """
        of_mask = self.causal_tiles if causal and self.causal_tiles else self.tiles
        return _tile(self.decode_tiles if one_query and self.decode_tiles else of_mask, width)

    def split_tile(self, width: int, *, causal: bool = False, one_query: bool = False) -> tuple[int, int, int]:
        """The same of the kernel whose keys are split.

        >>> FLASH_3_MMA.split_tile(128)
        (128, 128, 112)
        """
        if self.splits is None or not self.splits.tiles:
            return self.tile(width, causal=causal, one_query=one_query)
        return _tile(self.splits.tiles, width)


def _tile(tiles: AttentionTiles, width: int) -> tuple[int, int, int]:
    """The first that is wide enough."""
    return next((tile for tile in tiles if width <= tile[0]), (width, *tiles[-1][1:]))


#: The tiles of FlashAttention 2's kernel with splits, for any card (``run_mha_fwd_splitkv_dispatch``).
_SPLIT_TILES = ((64, 64, 256), (96, 64, 128), (128, 64, 128), (192, 64, 64), (256, 64, 64))
#: FlashAttention 2 (Dao 2023, arXiv:2307.08691) as PyTorch ships it, with the tiles of its kernels for compute
#: capability 8.x; where blocks of threads are too few, the kernel with splits that :data:`FLASH_2_PAGED` is
#: (``mha_fwd`` of ATen's flash_api.cpp). ``efficiency`` and ``exponentials`` from the paper's figures for the A100 (227
#: and 190 TFLOP/s at heads of 128 and 64, without a mask); the rest from the same kernels on Ada. No row has timed it
#: on an A100: the kernels of its successor there (:data:`FLASH_3_MMA`) reach 0.84.
FLASH_2 = AttentionKernels(
    name="flash_attention",
    tiles=((32, 128, 128), (64, 128, 128), (96, 128, 64), (128, 128, 32), (160, 128, 32), (192, 64, 64), (256, 64, 64)),
    causal_tiles=(
        (32, 128, 128), (64, 128, 128), (96, 64, 64), (128, 64, 64), (160, 64, 64), (192, 64, 64), (256, 64, 64)
    ),
    packs="one query",
    splits=Splits(blocks_a_unit=2, prompts=True, tiles=_SPLIT_TILES, part_cycles=250.0),
    efficiency=0.88,
    exponentials=1.0,
    block_cycles=1500,
    alone=0.9,
    tail=0.3,
    start=1.5,
    l2_copies=2,
)  # fmt: skip
#: The same for sequences that lie behind each other, which it does not split: layers for images of vLLM on an L40S.
#: ``start`` holds also what the layer launches besides, which no row tells apart, here and in all records that follow.
FLASH_2_VARLEN_ADA = replace(
    FLASH_2,
    name="flash_attention_varlen",
    splits=None,
    efficiency=0.822,
    exponentials=1.63,
    block_cycles=2350,
    alone=1.0,
    tail=0.474,
    start=2.24,
    dram_share=0.91,
    l2_copies=1,
)
#: On Ada as PyTorch ships it.
FLASH_2_ADA = replace(FLASH_2_VARLEN_ADA, name=FLASH_2.name, splits=FLASH_2.splits)
#: On Hopper without its warp-group instructions: 35 % of the peak (Shah et al. 2024, arXiv:2407.08608, figure 5: 370
#: TFLOP/s at heads of 128). No row has timed it.
FLASH_2_HOPPER = replace(FLASH_2, efficiency=0.44)
#: FlashAttention 2 that reads keys and values through a table of pages (vLLM): its split kernel, for any length.
#: Prompts and generation on the A100.
FLASH_2_PAGED = replace(
    FLASH_2,
    name="flash_attention_paged",
    tiles=_SPLIT_TILES,
    causal_tiles=(),
    splits=Splits(blocks_a_unit=2, shared_only=True, part_cycles=343.0),
    efficiency=0.685,
    exponentials=1.02,
    block_cycles=2080,
    alone=1.15,
    tail=0.843,
    start=1.48,
    dram_share=0.986,
    copies_packed=True,
)

#: The same on an L40S.
FLASH_2_PAGED_ADA = replace(
    FLASH_2_PAGED,
    efficiency=0.667,
    exponentials=1.32,
    block_cycles=3910,
    alone=0.908,
    tail=0.577,
    start=1.89,
    dram_share=0.966,
    l2_copies=1,
    l2_share=0.616,
)

#: FlashAttention 3 compiled for compute capability 8.0 (SGLang): it packs the heads that share keys and values, and
#: splits prompts as well (``hopper/heuristics.h``, ``tile_size.h`` and ``flash_prepare_scheduler.cu`` of its library).
FLASH_3_MMA = AttentionKernels(
    name="flash_attention_3_mma",
    tiles=((64, 128, 112), (96, 128, 64), (128, 128, 64), (256, 128, 64)),
    packs="always",
    splits=Splits(
        fewest_steps=4,
        prompts=True,
        by_sequence=True,
        tiles=((64, 128, 80), (96, 128, 48), (128, 128, 112), (256, 128, 64)),
        part_cycles=693.0,
    ),
    efficiency=0.845,
    exponentials=1.0,
    block_cycles=2730,
    alone=1.25,
    tail=1.07,
    start=1.0,
    dram_share=0.856,
    l2_copies=2,
)
#: FlashAttention 3 on Hopper (Shah et al. 2024): products by warp groups, whose softmax is partly hidden behind the
#: products of another group; long tiles first, so that little is left at the end. One query takes the tile of one warp
#: group where heads are narrow. Prompts, generation and images on an H100.
FLASH_3 = AttentionKernels(
    name="flash_attention_3",
    tiles=((64, 192, 192), (96, 192, 144), (128, 128, 176), (192, 128, 112), (256, 128, 80)),
    causal_tiles=((64, 192, 128), (96, 192, 144), (128, 128, 128), (192, 128, 112), (256, 128, 80)),
    decode_tiles=((64, 64, 192), (96, 64, 144), (128, 64, 176), (192, 128, 112), (256, 128, 80)),
    packs="always",
    splits=Splits(fewest_steps=4, prompts=True, by_sequence=True, part_cycles=112.0),
    efficiency=0.997,
    exponentials=0.79,
    block_cycles=4600,
    alone=1.09,
    tail=0.47,
    start=2.49,
    dram_share=1.04,
    l2_share=0.566,
    one_block=True,
)
#: TensorRT-LLM's prompts on the A100.
FMHA = AttentionKernels(
    name="fmha",
    tiles=((128, 64, 64),),
    efficiency=0.565,
    exponentials=1.04,
    block_cycles=1450,
    alone=1.17,
    tail=0.961,
    start=3.1,
    dram_share=1.05,
    l2_copies=2,
)
#: TensorRT-LLM's generation where up to 32 heads share keys and values (XQA): as many rows as they are, in sixteens.
XQA = AttentionKernels(
    name="xqa",
    tiles=((128, 32, 128),),
    row_step=16,
    packs="always",
    splits=Splits(blocks_a_unit=2, most=64, part_cycles=208.0),
    efficiency=0.247,
    exponentials=1.24,
    block_cycles=6310,
    alone=1.09,
    tail=1.01,
    start=0.8,
    dram_share=1.05,
    l2_share=0.7,
    l2_copies=2,
)
#: TensorRT-LLM's other generation (masked multi-head attention): a block of threads for each head and sequence, on the
#: ordinary lanes. ``exponentials`` is all of a score's work there: 18 cycles.
MMHA = AttentionKernels(
    name="masked_attention",
    tiles=((128, 1, 64),),
    splits=Splits(blocks_a_unit=2, fewest_steps=8, most=32, part_cycles=68.0),
    efficiency=0.5,
    exponentials=283.0,
    block_cycles=1480,
    alone=1.14,
    tail=1.12,
    start=3.12,
    dram_share=0.981,
    l2_share=0.723,
    l2_copies=2,
)
#: One query against a latent cache that is key and value at once (MLA), as vLLM runs it without a kernel made for the
#: machine: Triton, 16 heads and 32 keys a block, at most 4 parts (``triton_decode_attention.py``). No row has timed it:
#: constants are those of :data:`FLASH_2_PAGED`.
LATENT = replace(
    FLASH_2_PAGED,
    name="latent_attention",
    tiles=((576, 16, 32),),
    packs="always",
    splits=Splits(blocks_a_unit=2, most=4, part_cycles=343.0),
    copies_packed=False,
    values_in_keys=True,
)
LATENT_ADA = replace(
    FLASH_2_PAGED_ADA,
    name=LATENT.name,
    tiles=LATENT.tiles,
    packs=LATENT.packs,
    splits=LATENT.splits,
    copies_packed=False,
    values_in_keys=True,
)
#: The same on Hopper (FlashMLA): 64 heads and 64 keys a block, steps shared out over the units. ``efficiency`` and
#: ``dram_share`` from what its authors state for an H800, 660 TFLOP/s and 3000 GB/s; the rest is :data:`FLASH_3`'s. No
#: row has timed it.
LATENT_HOPPER = replace(
    FLASH_3,
    name=LATENT.name,
    tiles=((576, 64, 64),),
    causal_tiles=(),
    decode_tiles=(),
    splits=Splits(by_sequence=True, part_cycles=112.0),
    efficiency=0.71,
    tail=0.0,
    dram_share=0.957,
    values_in_keys=True,
)
