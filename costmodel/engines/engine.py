"""Engine: what every engine says of itself, for those who lower, time, explain, measure and report."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

from costmodel.errors import InputError
from costmodel.execution import Execution, Phase
from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile
from costmodel.host import HostProfile
from costmodel.kernels.plan import KernelPlan

__all__ = ["TROUBLES", "Advice", "Engine"]

#: What an engine can advise against: waiting for the ``host``, many short ``starts``, the ``traffic`` of results
#: between operators that could share a kernel.
TROUBLES = ("host", "starts", "traffic")


class Advice(NamedTuple):
    """What would help: the change in words, and the engine that it is evaluated with; None where it cannot be yet."""

    change: str
    engine: str | None = None


class Engine(ABC):
    """One way to run a graph.

    ``name``             the word that ``mode=`` and ``--mode`` take
    ``title``            what a page calls a model that runs so: "fails when it runs ``title``"
    ``help``             a few words for the command line
    ``spellings``        other words for it in files of measurements
    ``fuses_pointwise``  whether element-wise operators share kernels: a node may then have none of its own
    ``phases``           what it can run; a compiled or captured training step is not modelled
    ``captures``         whether it replays a device's launches, and so needs one beside the host
    ``has_own_loop``     whether its steps hold what is done between them; else that is transformers' ``generate``
    ``idle_word``        what a row says of such a node
    ``advice``           a trouble (one of :data:`TROUBLES`) -> what would help; nothing where this engine has no answer
    ``compile_options``  keyword arguments of ``torch.compile`` that make a model run so here; None without a compiler
    """

    name: ClassVar[str]
    title: ClassVar[str]
    help: ClassVar[str]
    spellings: ClassVar[tuple[str, ...]] = ()
    fuses_pointwise: ClassVar[bool] = False
    phases: ClassVar[frozenset[Phase]] = frozenset(Phase) - {Phase.TRAINING}
    captures: ClassVar[bool] = False
    has_own_loop: ClassVar[bool] = False
    idle_word: ClassVar[str] = "view"
    advice: ClassVar[Mapping[str, Advice]] = MappingProxyType({})
    compile_options: ClassVar[Mapping[str, Any] | None] = None

    def check(self, execution: Execution) -> None:
        """Raise InputError where it cannot run what an execution asks for."""
        if execution.phase not in self.phases:
            asked = f"a step of {execution.phase.value} in mode {self.name}"
            raise InputError(f"{asked} is not modelled\n  mode eager is: leave --mode out")
        if execution.precision.narrow_cache:
            asked = f"a cache in {execution.precision.cache} beside activations in {execution.precision.operands}"
            raise InputError(f"{asked} is what serving libraries keep, not PyTorch\n  say --mode serving with it")

    def program(self, graph: OpGraph) -> OpGraph:
        """The program that it runs in the place of a traced one; most run what was traced."""
        return graph

    @abstractmethod
    def lower(self, graph: OpGraph, execution: Execution, hardware: HardwareProfile) -> KernelPlan:
        """Kernels of one step of ``graph`` (bound to numbers), in program order. Raises FormulaError where a formula
        fails."""

    @abstractmethod
    def issued(self, plan: KernelPlan, graph: OpGraph, execution: Execution, host: HostProfile) -> list[float]:
        """For each launch of ``plan``, when ``host`` has issued it: seconds since the step began, never falling.

        What the host does for an operator can hang on its launches (``plan``: casts of autocast, copies), its call
        (``graph``), and the software (``execution``); :mod:`costmodel.host.issue` has the ways in which it adds up.
        """
