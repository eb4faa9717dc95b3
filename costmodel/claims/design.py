"""Design: a layer, or several in a row, in symbols; what it weighs, costs and sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeAlias

from costmodel.cost import Cost
from costmodel.errors import FormulaError, InputError, librarian, near_matches
from costmodel.formulas import cost_of
from costmodel.receptive_field import Field
from costmodel.symbols import Dim, as_expr, product, symbol
from costmodel.tensor import TensorSpec

if TYPE_CHECKING:
    import sympy

__all__ = ["QUANTITIES", "Design", "Layer", "maps", "operator", "ratio", "sequence"]

#: What a design can be asked for, with its unit.
QUANTITIES: Mapping[str, str] = {
    "params": "",
    "macs": "MAC",
    "flops": "FLOP",
    "bytes_read": "B",
    "bytes_written": "B",
    "activation_bytes": "B",
    "im2col_bytes": "B",
    "receptive_field": "",
    "jump": "",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """A layer or block applied to ``input``: sizes, weights and costs are numbers or sympy expressions.

    ``params`` counts weights and biases; ``cost`` is the sum of its operators' formulas; ``field`` the window of
    the input that one output position sees along each spatial axis (the axes are alike).
    """

    input: TensorSpec
    output: TensorSpec
    params: Dim = 0
    cost: Cost = field(default_factory=Cost)
    field: Field = field(default_factory=Field)

    def __getitem__(self, quantity: str) -> Dim:
        """A quantity by name, one of :data:`QUANTITIES`; raises InputError for another.

        ``bytes_read`` and ``bytes_written`` are compulsory traffic: ShuffleNet V2's memory access cost, in bytes.
        ``activation_bytes`` is what is kept of the output alone.
        """
        values: dict[str, Callable[[], Any]] = {
            "params": lambda: self.params,
            "macs": lambda: self.cost.macs,
            "flops": lambda: self.cost.flops,
            "bytes_read": lambda: self.cost.bytes_read,
            "bytes_written": lambda: self.cost.bytes_written,
            "activation_bytes": lambda: self.output.nbytes,
            "im2col_bytes": lambda: self.cost.workspace_bytes,
            "receptive_field": lambda: self.field.size,
            "jump": lambda: self.field.jump,
        }
        if quantity not in values:
            near = near_matches(quantity, values)
            raise InputError(librarian(f"a layer has no {quantity!r}", there_is=list(values), near=near))
        return values[quantity]()

    @property
    def access(self) -> Dim:
        """Elements read and written once: inputs, weights and outputs, ShuffleNet V2's memory access cost."""
        return as_expr(self.cost.bytes) / self.input.itemsize

    def subs(self, sizes: Mapping[str, Dim]) -> Design:
        """The same design with sizes in place of symbols, by name."""
        pairs = {symbol(name): value for name, value in sizes.items()}

        def put(dim: Dim) -> Dim:
            value = as_expr(dim).subs(pairs)
            return int(value) if value.is_Integer else value

        def spec(old: TensorSpec) -> TensorSpec:
            return TensorSpec(tuple(map(put, old.shape)), old.dtype)

        return Design(
            input=spec(self.input),
            output=spec(self.output),
            params=put(self.params),
            cost=Cost(*(put(getattr(self.cost, f.name)) for f in fields(Cost))),
            field=Field(put(self.field.size), put(self.field.jump), put(self.field.start)),
        )


#: From the tensor that comes in to the design that takes it.
Layer: TypeAlias = Callable[[TensorSpec], Design]


def maps(*sizes: str | Dim, batch: str | Dim = 1, dtype: str = "float32") -> TensorSpec:
    """Feature maps [batch, C, *spatial]; names become symbols.

    >>> maps("C", 56, 56).shape
    (1, C, 56, 56)
    """
    return TensorSpec(tuple(symbol(s) if isinstance(s, str) else s for s in (batch, *sizes)), dtype)


def operator(
    name: str, x: TensorSpec, weights: Mapping[str, TensorSpec] | None = None, *, out: TensorSpec,
    seen: Field | None = None, **arguments: Any,
) -> Design:  # fmt: skip
    """One operator by its registered formula; ``weights`` are the arguments that are parameters.

    Raises FormulaError where the operator has no formula.
    """
    weights = dict(weights or {})
    cost = cost_of(name, {"input": x, **weights, **arguments}, out)
    if cost is None:
        raise FormulaError(f"{name} has no formula")
    params: Dim = 0
    for weight in weights.values():
        params = params + product(weight.shape)
    return Design(input=x, output=out, params=params, cost=cost, field=seen or Field())


def sequence(*layers: Layer) -> Layer:
    """Layers one behind the other, each taking what the one before puts out.

    >>> from costmodel.claims.layers import conv
    >>> block = sequence(conv(12, 1), conv(48, 3))(maps(24, 50, 50))
    >>> block.params, block.field.size
    (5472, 3)
    """

    def build(x: TensorSpec) -> Design:
        whole = Design(input=x, output=x)
        for layer in layers:
            part = layer(whole.output)
            whole = Design(
                input=x,
                output=part.output,
                params=whole.params + part.params,
                cost=whole.cost + part.cost,
                field=_behind(part.field, whole.field),
            )
        return whole

    return build


def _behind(outer: Field, inner: Field) -> Field:
    """The field of a layer that sees ``outer`` of what a layer before it saw ``inner`` of."""
    return Field(
        inner.size + (outer.size - 1) * inner.jump, inner.jump * outer.jump, inner.start + outer.start * inner.jump
    )


def ratio(design: Design, over: Design, quantity: str) -> sympy.Expr:
    """``design[quantity] / over[quantity]``, simplified to a sum of simple terms where there is one.

    Raises InputError for an unknown quantity, or where the divisor has none of it.
    """
    import sympy

    divisor = as_expr(over[quantity])
    if divisor == 0:
        raise InputError(f"the second design has no {quantity}, so there is no ratio")
    simple = sympy.simplify(as_expr(design[quantity]) / divisor)
    terms = sympy.expand(simple)
    return simple if any(sympy.denom(term).is_Add for term in sympy.Add.make_args(terms)) else terms
