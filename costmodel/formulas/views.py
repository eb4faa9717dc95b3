"""Operators that move and compute nothing: views, and the wiring between operators.

A view gives existing memory another shape, order or name. What torch's schemas declare as an alias of an
operand is a view; ``unsafe_`` ones are views in fact whose schema does not say so.
"""

from __future__ import annotations

from costmodel.formulas.elements import aten
from costmodel.formulas.registry import free

__all__ = ["EMPTY", "VIEWS", "WIRING"]

#: Another shape, order or part of the same memory.
VIEWS = aten(
    """
    view view_as _unsafe_view _reshape_alias unflatten expand expand_as broadcast_to squeeze unsqueeze permute
    transpose t numpy_T mT mH matrix_H adjoint swapaxes swapdims movedim moveaxis select slice narrow split
    split_with_sizes chunk tensor_split hsplit vsplit dsplit unbind unfold unsafe_split unsafe_split_with_sizes
    unsafe_chunk diagonal linalg_diagonal as_strided slice_inverse alias detach lift_fresh lift positive real
    imag view_as_real view_as_complex conj _conj _neg_view _fw_primal _make_dual values indices _values _indices
    crow_indices col_indices ccol_indices row_indices _sparse_coo_tensor_with_dims_and_tensors
    """
)

#: Memory that nothing is written to yet.
EMPTY = aten(
    """
    empty empty_like empty_strided empty_permuted new_empty new_empty_strided resize set
    """
)

#: Questions about sizes and checks on the host.
WIRING = aten(
    """
    size stride numel dim storage_offset sym_size sym_stride sym_numel sym_storage_offset sym_is_contiguous
    is_contiguous is_same_size is_complex is_floating_point _assert_async _functional_assert_async
    _assert_scalar _functional_assert_scalar _assert_tensor_metadata sym_constrain_range
    sym_constrain_range_for_size _functional_sym_constrain_range _functional_sym_constrain_range_for_size
    _make_dep_token record_stream
    """
)

free(*VIEWS, *EMPTY, *WIRING)
