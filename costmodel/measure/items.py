"""The pieces of a recorded step that are to be placed on nodes: operators at the level at which the graph has them.

A graph keeps ``linear`` whole and has no ``reshape``; a profiler shows ``reshape`` and within it the ``view`` that it
came to. So a recorded operator that the graph knows is one piece with everything under it; one that it does not know
is looked through, and its own time goes with the pieces that were found inside.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from costmodel.errors import InputError
from costmodel.formulas import is_free
from costmodel.measure.alignment import Token
from costmodel.measure.events import Event
from costmodel.measure.names import CONTRACTIONS, class_of, fused_text, op_of, signature

__all__ = ["Item", "Vocabulary", "items_of"]

#: A kernel below this share of its operator is added to the operator's own time in lists of kernels.
_SMALL = 0.02


@dataclass(slots=True)
class Item:
    """One piece of measured work.

    ``us`` is what counts: time on the device where kernels of a GPU were recorded, else on the host; ``host_us`` the
    host's in any case. ``inside`` numbers the composite that it was found in; the composite's own time is the item
    with ``rest`` of the same number, and ``foreign`` says that this composite is another way of doing what the graph
    does with contractions of its own. ``kernels`` add up to ``us``.
    """

    name: str
    token: Token
    us: float
    host_us: float
    kernels: list[tuple[str, float]] = field(default_factory=list)
    inside: int | None = None
    rest: bool = False
    foreign: bool = False
    fused: str = ""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The operators that a graph has, by name (``aten.conv2d``) and by class, and whether it is a training step's."""

    ops: frozenset[str]
    kinds: frozenset[str]
    trains: bool = False

    @classmethod
    def of(cls, ops: Collection[str], *, trains: bool = False) -> Vocabulary:
        """That of a graph's operators; ``trains``: it has a backward pass."""
        return cls(frozenset(ops), frozenset(map(class_of, ops)), trains)

    def knows(self, event: Event) -> bool:
        """Whether the graph has this operator by name, or a fused kernel may stand for its operators."""
        return op_of(event.name) in self.ops or bool(fused_text(event.name))

    def knows_alike(self, event: Event) -> bool:
        """Whether the graph has an operator that does the same work."""
        return "::" in event.name and class_of(op_of(event.name)) in self.kinds


def items_of(events: Sequence[Event], vocabulary: Vocabulary, on_device: bool) -> list[Item]:
    """The pieces of a step, in program order. Raises InputError for a backward pass that the graph does not have."""
    found: list[Item] = []
    maker = _Maker(vocabulary, on_device)
    for event in events:
        if event.name.startswith("autograd::engine") and not vocabulary.trains:
            alone = "record the model's forward pass alone, in eval mode"
            raise InputError(f"this trace recorded a backward pass: say --phase training, or {alone}")
        found += maker.items(event)
    return found


class _Maker:
    def __init__(self, vocabulary: Vocabulary, on_device: bool) -> None:
        self.vocabulary, self.on_device = vocabulary, on_device
        self.composites = 0

    def items(self, event: Event, inside: int | None = None) -> Iterator[Item]:
        """The pieces of one recorded operator and all that is under it."""
        if self.vocabulary.knows(event) or _is_contraction(event):
            yield self._whole(event, inside)
        elif self._contains(event, self.vocabulary.knows):
            yield from self._looked_through(event, inside)
        elif self.vocabulary.knows_alike(event):
            yield self._whole(event, inside)
        elif self._contains(event, self.vocabulary.knows_alike):
            yield from self._looked_through(event, inside)
        elif _is_operator(event) or event.kernels:
            yield self._whole(event, inside)
        else:
            yield from (item for child in event.children for item in self.items(child, inside))

    def _contains(self, event: Event, knows: object) -> bool:
        return any(knows(inner) for child in event.children for inner in child.walk())  # type: ignore[operator]

    def _looked_through(self, event: Event, inside: int | None) -> Iterator[Item]:
        """Pieces inside a composite; what it did itself goes with them. A mere region of code has no time."""
        if not _is_operator(event):
            yield from (item for child in event.children for item in self.items(child, inside))
            yield from self._own_kernels(event)
            return
        if inside is None:
            self.composites += 1
            inside = self.composites
        foreign = any(map(_is_contraction, event.walk()))
        host = event.self_us
        kernels = [(kernel.name, kernel.us) for kernel in event.kernels]
        us = sum(t for _, t in kernels) if self.on_device else host
        yield Item(event.name, Token("rest"), us, host, kernels or [(event.name, us)], inside, rest=True)
        for child in event.children:
            for item in self.items(child, inside):
                item.foreign = item.foreign or foreign
                if foreign and _only_moves(item.token):
                    item.token = Token("detail")
                yield item

    def _own_kernels(self, event: Event) -> Iterator[Item]:
        for kernel in event.kernels:
            yield Item(
                kernel.name, Token("kernel"), kernel.us, 0.0, [(kernel.name, kernel.us)], fused=fused_text(kernel.name)
            )

    def _whole(self, event: Event, inside: int | None) -> Item:
        op = op_of(event.name)
        kind, sizes = class_of(op), signature(op, event.shapes)
        us = event.device_us if self.on_device else event.duration_us
        kernels = _device_kernels(event) if self.on_device else _host_kernels(event)
        token = Token(kind, op, sizes, kind in CONTRACTIONS)
        return Item(event.name, token, us, event.duration_us, kernels, inside, fused=fused_text(event.name))


def _is_contraction(event: Event) -> bool:
    """A convolution, product or attention: work of its own, whatever it calls."""
    return class_of(op_of(event.name)) in CONTRACTIONS


def _only_moves(token: Token) -> bool:
    """A view or copy: within another way of doing the work it is no trace of the graph's own views and copies."""
    return is_free(token.name) or token.kind in ("view", "copy")


def _is_operator(event: Event) -> bool:
    """``aten::view`` is one; ``Torch-Compiled Region: 0/0`` and other annotations are not."""
    return "::" in event.name and " " not in event.name


def _device_kernels(event: Event) -> list[tuple[str, float]]:
    return _merged([(kernel.name, kernel.us) for inner in event.walk() for kernel in inner.kernels])


def _host_kernels(event: Event) -> list[tuple[str, float]]:
    """Who spent the time under an operator, by name; bookkeeping (``aten::empty``, ...) counts as its own."""
    parts = _merged([(inner.name, inner.self_us) for inner in event.walk()])
    large = [(name, us) for name, us in parts if us >= _SMALL * event.duration_us or name == event.name]
    left = event.duration_us - sum(us for _, us in large)
    return [(name, us + left if name == event.name else us) for name, us in large]


def _merged(parts: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    sums: dict[str, float] = {}
    for name, us in parts:
        sums[name] = sums.get(name, 0.0) + us
    return list(sums.items())
