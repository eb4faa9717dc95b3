"""What every operator costs: one formula each, symbolic and exact. ``@formula`` adds your own."""

from __future__ import annotations

from costmodel.formulas import (  # noqa: F401 - importing a sheet registers its formulas
    attention,
    backward_attention,
    backward_movement,
    backward_normalization,
    backward_pointwise,
    backward_recurrent,
    backward_reduction,
    contraction,
    convolution,
    ctc,
    eigenvalues,
    einsum,
    experts,
    factorization,
    movement,
    multi_tensor,
    normalization,
    packed,
    pointwise,
    pooling,
    quantized,
    recurrent,
    reduction,
    resampling,
    similarity,
    sorting,
    sparse,
    spectral,
    views,
)
from costmodel.formulas.registry import (
    Formula,
    cost_of,
    cost_or_default,
    default_cost,
    formula,
    free,
    is_free,
    known_operators,
    lookup,
)

__all__ = [
    "Formula",
    "cost_of",
    "cost_or_default",
    "default_cost",
    "formula",
    "free",
    "is_free",
    "known_operators",
    "lookup",
]
