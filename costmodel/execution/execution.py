"""Execution: the parts of a run, put together from words and told in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from costmodel.errors import InputError, librarian, near_matches
from costmodel.execution.layout import LAYOUTS
from costmodel.execution.optimizer import Optimizer
from costmodel.execution.phase import Phase
from costmodel.execution.precision import CACHES, Precision
from costmodel.execution.software import Software
from costmodel.execution.trained import Trained
from costmodel.execution.weights import WeightScheme
from costmodel.execution.words import chosen, truth

__all__ = ["USUAL_HOST", "Execution"]

#: Where inputs may lie when a step begins.
INPUTS = ("device", "host")
#: The host that a machine is usually met with.
USUAL_HOST = "usual"


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """The conditions of a run: everything beside model and machine that changes its kernels and their time.

    ``batch``       samples a step
    ``sizes``       of the inputs beside the batch, by the name of the graph's symbol (``height``, ``seq_len``, ...)
    ``precision``   number formats, see :class:`~costmodel.execution.Precision`
    ``weights``     how the weights of linear layers in a model's blocks are stored, one of
                    :data:`~costmodel.execution.WEIGHTS`; None: as the model's configuration says
    ``layout``      memory format of images and weights, one of :data:`~costmodel.execution.LAYOUTS`
    ``engine``      what lowers the graph and issues its kernels, by the word that ``mode=`` takes
    ``host``        the computer that issues, by name; engines and hosts have rooms above and are looked up there
    ``phase``       what the run is for
    ``inputs``      where the inputs lie when the step begins: on the ``device``, or in ordinary (pageable) memory of
                    the ``host``, from where the step copies them
    ``train_mode``  the module is in train mode, whatever the phase: batch norms take and update statistics
    ``optimizer``   what a training step does with its gradients; nothing reads it in other phases
    ``trained``     which weights a training step trains, and what of its forward pass it keeps
    ``power_limit_w``   what the board may draw, where that is less than its own limit [W]
    ``software``    releases and switches

    :meth:`of` and :meth:`changed` take words, as a command line or a file has them.
    Raises InputError for a batch that is no whole number of at least 1, and for an unknown word.
    """

    batch: int = 1
    sizes: Mapping[str, int] = field(default_factory=dict)
    precision: Precision = field(default_factory=Precision)
    weights: str | None = None
    layout: str = "nchw"
    engine: str = "eager"
    host: str = USUAL_HOST
    phase: Phase = Phase.INFERENCE
    inputs: str = "device"
    train_mode: bool = False
    optimizer: Optimizer = field(default_factory=Optimizer)
    trained: Trained = field(default_factory=Trained)
    power_limit_w: float | None = None
    software: Software = field(default_factory=Software)

    def __post_init__(self) -> None:
        chosen("layout", self.layout, LAYOUTS)
        chosen("place of inputs", self.inputs, INPUTS)
        if self.weights is not None:
            WeightScheme.of(self.weights)
        object.__setattr__(self, "phase", Phase.of(self.phase))
        for name, kind in _KINDS:
            if not isinstance(getattr(self, name), kind):
                said = getattr(self, name)
                raise InputError(f"{name} is a {kind.__name__}, not {said!r}\n  Execution.of(dtype=...) takes words")
        if isinstance(self.batch, bool) or not isinstance(self.batch, int) or self.batch < 1:
            raise InputError(f"batch must be a whole number of at least 1, not {self.batch!r}")

    @classmethod
    def of(cls, **words: Any) -> Execution:
        """The run that words describe: ``batch``, ``sizes``, ``dtype``, ``kv_dtype``, ``weights``, ``layout``,
        ``mode``, ``host``, ``phase``, ``inputs``, ``train_mode``, ``power_limit`` [W], and the names of
        :class:`~costmodel.execution.Optimizer`, :class:`~costmodel.execution.Trained` and
        :class:`~costmodel.execution.Software`; what is not said has its
        default.

        >>> run = Execution.of(batch=8, dtype="amp_fp16", mode="compile", torch="2.4.0")
        >>> run.precision.autocast, run.engine, run.software.torch
        ('fp16', 'compile', '2.4.0')
        """
        return cls().changed(**words)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """What :meth:`of` and :meth:`changed` take."""
        return (*_PARTS, "kv_dtype", *Optimizer.names(), *Trained.names(), *Software.names())

    def changed(self, **words: Any) -> Execution:
        """This run with some words changed; None changes nothing. Raises InputError for a name that no part has."""
        known = self.names()
        for name in words:
            if name not in known:
                near = near_matches(name, known)
                raise InputError(librarian(f"no condition of a run is called {name!r}", there_is=known, near=near))
        said = {name: word for name, word in words.items() if word is not None}
        parts = {part: parse(said[name]) for name, (part, parse) in _PARTS.items() if name in said}
        cache = said.get("kv_dtype", self.precision.cache if self.precision.narrow_cache else None)
        if cache is not None:
            precision = parts.get("precision", self.precision)
            parts["precision"] = replace(precision, cache=chosen("dtype of a cache", cache, CACHES))
        software = replace(self.software, **Software.parsed(said))
        parts |= {"optimizer": self.optimizer.changed(said), "trained": self.trained.changed(said)}
        return replace(self, software=software, **parts)

    @property
    def in_train_mode(self) -> bool:
        """Whether the module is in train mode: where it was asked for, and in training."""
        return self.train_mode or self.phase is Phase.TRAINING

    @property
    def words(self) -> dict[str, str]:
        """The parts that have words, by the names of CSV columns, JSON keys and keyword arguments."""
        words = {"dtype": str(self.precision), "layout": self.layout, "mode": self.engine, "phase": self.phase.value}
        words |= {} if self.weights is None else {"weights": self.weights}
        if self.phase is not Phase.TRAINING:
            return words
        trained = {"trained": str(self.trained)} if not self.trained.is_usual else {}
        return {**words, "optimizer": str(self.optimizer), **trained}


_KINDS = (("precision", Precision), ("optimizer", Optimizer), ("trained", Trained), ("software", Software))


def _as_is(value: Any) -> Any:
    return value


def _watts(word: float | str) -> float:
    """A power [W], a number or a text with its unit. Raises InputError for what is none, or not above 0."""
    from costmodel.units import parse_quantity

    watts = parse_quantity(word, "W") if isinstance(word, str) else word
    if isinstance(watts, bool) or not isinstance(watts, (int, float)) or not 0 < watts < float("inf"):
        raise InputError(f"a power limit must be a number of watts above 0, not {word!r}")
    return float(watts)


def _precision(word: str | Precision) -> Precision:
    return word if isinstance(word, Precision) else Precision.of(word)


#: Name of a condition -> the field that it is, and how its word becomes a value.
_PARTS: Mapping[str, tuple[str, Callable[[Any], Any]]] = MappingProxyType(
    {
        "batch": ("batch", _as_is),
        "sizes": ("sizes", _as_is),
        "dtype": ("precision", _precision),
        "weights": ("weights", _as_is),
        "layout": ("layout", _as_is),
        "mode": ("engine", _as_is),
        "host": ("host", _as_is),
        "phase": ("phase", _as_is),
        "inputs": ("inputs", _as_is),
        "train_mode": ("train_mode", truth),
        "power_limit": ("power_limit_w", _watts),
    }
)
