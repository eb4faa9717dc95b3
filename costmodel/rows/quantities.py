"""The quantities that add up over operators: what each is, in which unit, and how an operator's share is counted.

Adding one is one field of :class:`Quantities`: rows, totals, tables, JSON and its schema read this table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from costmodel.cost import Cost
    from costmodel.kernels import Kernel
    from costmodel.timing import Slot

__all__ = ["QUANTITIES", "Quantities", "Quantity", "Work"]


class Work(NamedTuple):
    """What the quantities of one operator are counted from.

    ``cost``              as traced, in fp32
    ``run_cost``          in the dtypes of the run
    ``kernels``, ``slots``  what it launches, and when
    ``params``            elements of the parameters that it is the first to use
    ``activation_bytes``  B of its result in fp32 where it makes a new one of its own
    """

    cost: Cost
    run_cost: Cost
    kernels: Sequence[Kernel]
    slots: Sequence[Slot]
    params: int
    activation_bytes: int


class Quantity(NamedTuple):
    """One entry of the table.

    ``heading``     over a column of a table; ``title`` in a sentence
    ``unit``        FLOP, B, s, J; empty for a count
    ``meaning``     one line, as in the JSON schema
    ``of``          an operator's share
    ``importance``  of its column on a page, from 0 to 100; None where pages show it only if asked to
    ``in_data``     whether rows of data formats hold it
    """

    key: str
    heading: str
    title: str
    unit: str
    meaning: str
    of: Callable[[Work], Any]
    importance: int | None
    in_data: bool

    @property
    def is_whole(self) -> bool:
        """Whether it is counted in whole numbers."""
        return self.unit not in ("s", "J")


def _quantity(
    heading: str,
    unit: str,
    meaning: str,
    of: Callable[[Work], Any],
    *,
    title: str = "",
    importance: int | None = None,
    in_data: bool = True,
) -> Any:
    return field(
        default=0,
        metadata={
            "heading": heading,
            "title": title or heading,
            "unit": unit,
            "meaning": meaning,
            "of": of,
            "importance": importance,
            "in_data": in_data,
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantities:
    """Amounts of one operator, or of several added up."""

    flops: int = _quantity(
        "FLOPs", "FLOP", "FLOP: 2 per multiply-accumulate and 1 per other arithmetic operation",
        lambda work: work.cost.flops, importance=80,
    )  # fmt: skip
    matrix_flops: int = _quantity(
        "matrix", "FLOP", "FLOP of convolutions and matrix products", lambda work: work.cost.matrix_flops
    )
    vector_flops: int = _quantity("vector", "FLOP", "FLOP of everything else", lambda work: work.cost.vector_flops)
    macs: int = _quantity(
        "MACs", "MAC", "multiply-accumulates of convolutions and matrix products", lambda work: work.cost.macs
    )
    params: int = _quantity(
        "params", "", "parameters, in elements; in the totals, shared ones count once",
        lambda work: work.params, title="parameters", importance=30,
    )  # fmt: skip
    bytes_read: int = _quantity(
        "read", "B", "compulsory traffic from device memory, in B: every operand once",
        lambda work: work.run_cost.bytes_read, title="bytes read",
    )  # fmt: skip
    bytes_written: int = _quantity(
        "written", "B", "compulsory traffic to device memory, in B: every result once",
        lambda work: work.run_cost.bytes_written, title="bytes written",
    )  # fmt: skip
    traffic_bytes: int = _quantity(
        "moved", "B", "traffic of the kernels that run, in B",
        lambda work: sum(kernel.bytes for kernel in work.kernels), in_data=False,
    )  # fmt: skip
    activations: int = _quantity(
        "activations", "", "elements put out by convolutions and matrix products", lambda work: work.cost.activations
    )
    activation_bytes: int = _quantity(
        "act. mem.", "B",
        "fp32 results of contractions and pooling, of which the rest is made in place, in B",
        lambda work: work.activation_bytes,
    )  # fmt: skip
    workspace_bytes: int = _quantity(
        "workspace", "B", "memory that the algorithm needs besides its operands, in B",
        lambda work: work.cost.workspace_bytes,
    )  # fmt: skip
    kernels: int = _quantity(
        "kernels", "", "kernels started; a view starts none", lambda work: sum(kernel.starts for kernel in work.kernels)
    )
    latency_s: float = _quantity(
        "time", "s", "predicted time, in s", lambda work: sum(slot.latency_s for slot in work.slots), importance=97
    )
    energy_j: float = _quantity(
        "energy", "J", "predicted energy that the machine draws, in J; null where it is not modelled",
        lambda work: sum(slot.energy_j for slot in work.slots),
    )  # fmt: skip


#: In the order in which tables and data show them.
QUANTITIES = tuple(Quantity(key=entry.name, **entry.metadata) for entry in fields(Quantities))
