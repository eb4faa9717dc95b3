"""Operators that move elements and compute nothing: copies, casts, joins, padding, gathers, scatters, constants.

0 FLOP, except where a scatter adds. A copy reads every operand once (a broadcast one in its own size) and
writes every result once. A gather reads only the elements that it fetches, and the indices; a scatter copies its
operand and scatters over it; in place (``in_place``) it writes the elements that it changes and no others, and
reads them where it folds something in. A constant is only written. Operators that *may* be
views (``reshape``, ``contiguous``, ``to``) are free where their operand is contiguous or its dtype stays.
"""

from __future__ import annotations

from typing import Any

from costmodel.cost import Cost
from costmodel.formulas.elements import aten, cost, lines
from costmodel.formulas.operands import nbytes
from costmodel.formulas.registry import formula
from costmodel.symbols import Dim, maximum, product
from costmodel.tensor import TensorSpec

__all__ = ["CONSTANTS", "COPIES", "GATHERS", "MAYBE_VIEWS"]

#: Read all operands, write all results.
COPIES = aten(
    """
    clone _to_copy _reshape_copy lift_fresh_copy copy_sparse_to_sparse _lazy_clone cat concat concatenate stack
    _chunk_cat hstack vstack dstack column_stack row_stack block_diag constant_pad_nd reflection_pad1d
    reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d pad _pad_circular
    roll flip fliplr flipud rot90 repeat tile repeat_interleave tril triu diag diagflat diag_embed pixel_shuffle
    pixel_unshuffle channel_shuffle native_channel_shuffle slice_scatter select_scatter diagonal_scatter
    as_strided_scatter masked_scatter put one_hot complex meshgrid view_copy expand_copy
    squeeze_copy unsqueeze_copy permute_copy transpose_copy t_copy select_copy slice_copy narrow_copy split_copy
    split_with_sizes_copy unbind_copy unfold_copy diagonal_copy as_strided_copy alias_copy detach_copy
    view_as_real_copy view_as_complex_copy
    """
)

#: Read the elements that they fetch, as many as they give out, and the indices.
GATHERS = aten(
    """
    gather take take_along_dim index_select index _unsafe_index masked_select _unsafe_masked_index
    """
)

#: Write one value, or one that follows from the position.
CONSTANTS = aten(
    """
    zeros ones full zeros_like ones_like full_like new_zeros new_ones new_full zero fill scalar_tensor arange
    range linspace logspace eye tril_indices triu_indices _efficientzerotensor rand rand_like randint
    randint_like random uniform randperm hann_window hamming_window blackman_window bartlett_window
    kaiser_window fft_fftfreq fft_rfftfreq
    """
)

#: Views where the memory allows it, else copies.
MAYBE_VIEWS = aten(
    """
    reshape reshape_as flatten ravel contiguous resolve_conj resolve_neg
    """
)


@formula(*COPIES)
def copy_all(*, out: Any, **arguments: Any) -> Cost:
    """Every operand read once, every result written once, one launch.

    >>> from costmodel.tensor import f32
    >>> cat = copy_all(tensors=[f32(2, 3), f32(4, 3)], dim=0, out=f32(6, 3))
    >>> cat.bytes_read, cat.bytes_written, cat.flops, cat.launches          # 6*3 elements of 4 B
    (72, 72, 0, 1)
    """
    return cost(0, arguments.values(), out)


@formula("aten.copy", "aten._copy_from", "aten._copy_from_and_resize")
def copy_into(src: Any, *, out: Any) -> Cost:
    """``input.copy_(src)`` reads the source only."""
    return cost(0, (src,), out)


@formula(*aten("to type_as _autocast_to_reduced_precision _autocast_to_full_precision _cast_Float _cast_Half"))
def cast(input: TensorSpec, *, out: TensorSpec) -> Cost:
    """Another dtype: a copy. The same dtype: the tensor itself."""
    return Cost() if input.dtype == out.dtype else cost(0, (input,), out)


@formula(*MAYBE_VIEWS)
def maybe_view(input: TensorSpec, *, out: TensorSpec) -> Cost:
    """Free for a contiguous operand (``strides`` None); else counted as a copy."""
    return Cost() if input.strides is None else cost(0, (input,), out)


@formula(*CONSTANTS)
def constant(*, out: Any) -> Cost:
    """Written once; nothing of what was there before is read."""
    return cost(0, (), out)


@formula(*GATHERS)
def gather(input: TensorSpec, indices: Any = None, index: Any = None, mask: Any = None, *, out: TensorSpec) -> Cost:
    """Reads as many elements of the operand as it gives out, and the indices or the mask.

    >>> from costmodel.tensor import f32
    >>> rows = gather(f32(1000, 8), index=TensorSpec((5,), "int64"), out=f32(5, 8))
    >>> rows.bytes_read, rows.bytes_written                                 # 5*8*4 + 5*8, 5*8*4
    (200, 160)
    """
    return cost(0, (indices, index, mask), out, read_also=out.numel * input.itemsize)


@formula("aten.embedding")
def embedding(weight: TensorSpec, indices: TensorSpec, *, out: TensorSpec) -> Cost:
    """out[*, D] = weight[indices[*], D]: reads one row for each index, not the whole table.

    >>> from costmodel.tensor import f32
    >>> cost = embedding(f32(30522, 768), TensorSpec((1, 128), "int64"), out=f32(1, 128, 768))
    >>> cost.bytes_read == 128 * 768 * 4 + 128 * 8, cost.flops
    (True, 0)
    """
    return gather(weight, indices, out=out)


@formula("aten.embedding_bag", "aten._embedding_bag", "aten._embedding_bag_forward_only")
def embedding_bag(
    weight: TensorSpec,
    indices: TensorSpec,
    offsets: Any = None,
    mode: int = 0,
    per_sample_weights: Any = None,
    *,
    out: Any,
) -> Cost:
    """out[bag, D] = sum (mode 0), mean (1) or max (2) of the rows of a bag, each weighed where weights are given.

    Folding m rows into one is m - 1 operations an element; a mean divides once more.
    """
    bags = out[0] if isinstance(out, (tuple, list)) else out
    fetched = indices.numel * weight.shape[-1]
    flops = fetched - bags.numel * (0 if mode == 1 else 1)
    if isinstance(per_sample_weights, TensorSpec):
        flops = flops + fetched
    read_also = fetched * weight.itemsize
    return cost(flops, (indices, offsets, per_sample_weights), out, read_also=read_also)


def _changed(
    flops: Dim, input: TensorSpec, read: tuple[Any, ...], changed: Dim, in_place: bool, *, folds: bool, out: TensorSpec
) -> Cost:
    """Cost of changing ``changed`` elements (at most all): a copy of all of them, or those alone in place."""
    if not in_place:
        return cost(flops, (input, *read), out)
    touched = (changed + out.numel - maximum(changed, out.numel)) * out.itemsize  # the lesser of the two
    return Cost(
        vector_flops=flops, bytes_read=nbytes(*read) + (touched if folds else 0), bytes_written=touched, launches=1
    )


@formula("aten.scatter")
def scatter(
    input: TensorSpec,
    index: TensorSpec,
    src: Any = None,
    reduce: str | None = None,
    in_place: bool = False,
    *,
    out: TensorSpec,
) -> Cost:
    """Puts the source's elements at indices; with ``reduce`` adds or multiplies them: 1 FLOP each."""
    flops = index.numel if reduce else 0
    return _changed(flops, input, (index, src), index.numel, in_place, folds=bool(reduce), out=out)


@formula("aten.scatter_add")
def scatter_add(
    input: TensorSpec, index: TensorSpec, src: TensorSpec, in_place: bool = False, *, out: TensorSpec
) -> Cost:
    """Adds the source's elements at indices: 1 FLOP each."""
    return _changed(index.numel, input, (index, src), index.numel, in_place, folds=True, out=out)


@formula("aten.scatter_reduce")
def scatter_reduce(
    input: TensorSpec,
    index: TensorSpec,
    src: TensorSpec,
    reduce: str = "sum",
    in_place: bool = False,
    *,
    out: TensorSpec,
) -> Cost:
    """Folds the source's elements in at indices: 1 FLOP each; a mean counts them as well and divides each result."""
    mean = index.numel + out.numel if reduce == "mean" else 0
    changed = out.numel if reduce == "mean" else index.numel
    return _changed(index.numel + mean, input, (index, src), changed, in_place, folds=True, out=out)


@formula("aten.index_copy")
def index_copy(
    input: TensorSpec, index: TensorSpec, source: TensorSpec, in_place: bool = False, *, out: TensorSpec
) -> Cost:
    """Puts the source's rows at indices.

    >>> from costmodel.tensor import f32
    >>> token, keys = f32(1, 8, 1, 64), f32(1, 8, 4096, 64)                 # one more token in a cache of 4096
    >>> new = index_copy(keys, TensorSpec((1,), "int64"), token, in_place=True, out=keys)
    >>> new.bytes_read == 8 * 64 * 4 + 8, new.bytes_written == 8 * 64 * 4
    (True, True)
    """
    return _changed(0, input, (index, source), source.numel, in_place, folds=False, out=out)


@formula("aten.index_fill")
def index_fill(
    input: TensorSpec, dim: int, index: TensorSpec, value: Any = 0, in_place: bool = False, *, out: TensorSpec
) -> Cost:
    """Puts one value into the rows at indices."""
    return _changed(0, input, (index, value), index.numel * lines(input, dim), in_place, folds=False, out=out)


@formula("aten.index_add")
def index_add(
    input: TensorSpec,
    index: TensorSpec,
    source: TensorSpec,
    alpha: Any = 1,
    in_place: bool = False,
    *,
    out: TensorSpec,
) -> Cost:
    """Adds the source's rows at indices: 1 FLOP an element, 2 with a factor."""
    flops = (1 if alpha == 1 else 2) * source.numel
    return _changed(flops, input, (index, source), source.numel, in_place, folds=True, out=out)


@formula("aten.index_reduce")
def index_reduce(
    input: TensorSpec, index: TensorSpec, source: TensorSpec, in_place: bool = False, *, out: TensorSpec
) -> Cost:
    """Folds the source's rows in at indices: 1 FLOP an element."""
    return _changed(source.numel, input, (index, source), source.numel, in_place, folds=True, out=out)


@formula("aten.index_put", "aten._unsafe_index_put", "aten._index_put_impl")
def index_put(
    input: TensorSpec,
    indices: Any,
    values: TensorSpec,
    accumulate: bool = False,
    in_place: bool = False,
    *,
    out: TensorSpec,
) -> Cost:
    """Puts values at indices; ``accumulate`` adds them: 1 FLOP for each value.

    How many elements a mask takes is not known: all, at most.
    """
    flops = values.numel if accumulate else 0
    changed = _indexed(input, indices)
    return _changed(flops, input, (indices, values), changed, in_place, folds=accumulate, out=out)


def _indexed(input: TensorSpec, indices: Any) -> Dim:
    """Elements of ``input`` that ``indices``, one for each leading dimension or None, name: the indices broadcast."""
    given = [index for index in indices if isinstance(index, TensorSpec)]
    if not given or any(index.dtype in ("bool", "uint8") for index in given):
        return input.numel
    rank = max(len(index.shape) for index in given)
    shapes = [(1,) * (rank - len(index.shape)) + index.shape for index in given]
    named = product(maximum(*sizes) for sizes in zip(*shapes, strict=True))
    kept = [size for d, size in enumerate(input.shape) if d >= len(indices) or not isinstance(indices[d], TensorSpec)]
    return named * product(kept)


@formula("aten.polar")
def polar(abs: TensorSpec, angle: TensorSpec, *, out: TensorSpec) -> Cost:
    """r*cos(t) + i*r*sin(t): 4 FLOP."""
    return cost(4 * out.numel, (abs, angle), out)


@formula("aten._local_scalar_dense", "aten.item")
def item(input: TensorSpec, *, out: Any = None) -> Cost:
    """One element copied to the host, which waits for it."""
    return Cost(bytes_read=nbytes(input), launches=1)


@formula("aten._pack_padded_sequence")
def pack_padded_sequence(input: TensorSpec, lengths: TensorSpec, *, out: tuple[TensorSpec, ...]) -> Cost:
    """The steps of sequences that are long enough, one time step after the other: kept elements are read and written.

    ``lengths`` [sequences] and the batch size of each time step, the second result, lie in the host's memory.

    >>> from costmodel.tensor import f32
    >>> packed = f32(5, 8), TensorSpec((3,), "int64")                   # lengths 3 and 2: 5 steps of 8 features
    >>> pack_padded_sequence(f32(2, 3, 8), TensorSpec((2,), "int64"), out=packed).bytes
    320
    """
    return Cost(bytes_read=nbytes(out[0]), bytes_written=nbytes(out[0]), launches=1)


@formula("aten._pad_packed_sequence")
def pad_packed_sequence(data: TensorSpec, batch_sizes: TensorSpec, *, out: tuple[TensorSpec, ...]) -> Cost:
    """The reverse of :func:`pack_padded_sequence`: the padding is written everywhere, the packed steps over it.

    >>> from costmodel.tensor import f32
    >>> padded = f32(2, 3, 8), TensorSpec((2,), "int64")
    >>> pad_packed_sequence(f32(5, 8), TensorSpec((3,), "int64"), out=padded).bytes           # 48 + 2*5*8 floats of 4 B
    512
    """
    return Cost(bytes_read=nbytes(data), bytes_written=nbytes(out[0], data), launches=2)


@formula("aten.lu_unpack")
def lu_unpack(LU_data: TensorSpec, LU_pivots: Any = None, *, out: Any) -> Cost:
    """L and U out of the place of A, and exchanges of rows as a matrix: nothing is calculated."""
    return cost(0, (LU_data, LU_pivots), out)
