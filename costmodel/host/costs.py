"""What PyTorch asks of the host for one operator, made of the parts that it is made of.

All times are µs on the reference core, the host of an H100 in the public timings that the constants were set from; a
host takes ``slowdown`` times as long for each of them. An operator's cost is a sum:

    the calls of ``nn.Module`` that lead to it + its class (dispatcher, checks, descriptors, the launch)
    + the allocation of its result + every further kernel that it launches, every operator that it calls itself

Two releases of PyTorch apart the parts differ, so there is one table for each era (:func:`costs_of`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType

from costmodel.execution import Software
from costmodel.formulas import is_free, lookup

__all__ = [
    "CLASSES",
    "CapturedCosts",
    "CompiledCosts",
    "HostCosts",
    "LoopCosts",
    "TrainingCosts",
    "class_of",
    "costs_of",
]

#: Classes of operators by what they ask of the host.
CLASSES = (
    "view", "pointwise", "movement", "concatenation", "reduction", "pooling", "normalization", "statistics", "product",
    "attention", "convolution", "native_convolution", "recurrent",
)  # fmt: skip

#: Sheet of an operator's formula -> its class.
_BY_SHEET = {
    "pointwise": "pointwise",
    "movement": "movement",
    "reduction": "reduction",
    "pooling": "pooling",
    "resampling": "reduction",
    "normalization": "normalization",
    "einsum": "product",
    "attention": "attention",
    "contraction": "product",
    "convolution": "convolution",
    "recurrent": "recurrent",
    "backward_pointwise": "pointwise",
    "backward_movement": "movement",
    "backward_reduction": "reduction",
    "backward_normalization": "normalization",
    "backward_attention": "attention",
    "backward_recurrent": "recurrent",
}
_BY_OP = {
    "aten.cat": "concatenation", "aten.stack": "concatenation", "aten.dropout": "view",
    **dict.fromkeys(("aten.zero", "aten.fill", "aten.ones_like", "aten.zeros_like"), "pointwise"),  # nothing is read
}  # fmt: skip


def class_of(op: str) -> str:
    """The class of an operator, one of :data:`CLASSES`; an unknown one is as dear as a pointwise one.

    >>> class_of("aten.conv2d"), class_of("aten.view"), class_of("aten.cat")
    ('convolution', 'view', 'concatenation')
    """
    if is_free(op):
        return "view"
    if op in _BY_OP:
        return _BY_OP[op]
    formula = lookup(op)
    return _BY_SHEET.get("" if formula is None else formula.__module__.rpartition(".")[2], "pointwise")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledCosts:
    """A step compiled by TorchInductor, µs on the reference core.

    ``call``         the call itself: guards, AOTAutograd's and Inductor's wrappers
    ``generated``    one generated kernel: Triton's launcher
    ``product``, ``convolution``, ``other``   one call of a library from the wrapper, through ATen
    ``statistics``   besides, for a batch norm that updates its running statistics: three buffers written back
    """

    call: float = 54.0
    generated: float = 7.0
    product: float = 6.0
    convolution: float = 20.6
    other: float = 7.0
    statistics: float = 28.5


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturedCosts:
    """A step that was captured as a CUDA graph.

    ``call``         guards, copies of the inputs and the launch of the graph, µs on the reference core
    ``statistics``   besides, for a batch norm that updates its running statistics, µs on the reference core
    ``gap_us``       between two kernels of the graph, on the device whatever the host [µs]
    """

    call: float
    statistics: float
    gap_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingCosts:
    """What a training step asks beside its operators, µs on the reference core.

    All of them are Python's and autograd's, before anything of a device is touched, so that they were measured with
    tiny tensors on a CPU that counts as the reference core (``benchmarks/training_host.py``, PyTorch 2.13).

    ``differentiated``  an operator of the forward pass of which autograd takes note: its function, saved tensors
    ``view``            a view that C++ makes for itself: of a weight for ``linear``, of a gradient
    ``begun``           the backward pass itself: roots, the wake-up of autograd's thread and of Python's after it
    ``function``        one function of autograd's graph: its queue, hooks, checks of what it gives
    ``accumulated``     one gradient that is kept as ``.grad``
    ``step``            the optimizer's ``step`` and ``zero_grad`` themselves, without parameters
    ``parameter``       Python's loops over parameters in both, each
    ``state``           the same for each state that a parameter has
    ``counted``         a count of steps on the host, each: one addition, and Python's arithmetic with it
    ``listed``          one tensor in a list that is handed to an operator: unpacked, compared, its address noted
    """

    differentiated: float = 0.5
    view: float = 0.3
    begun: float = 8.0
    function: float = 1.4
    accumulated: float = 1.8
    step: float = 14.0
    parameter: float = 0.55
    state: float = 0.3
    counted: float = 1.2
    listed: float = 0.1

    def times(self, factor: float) -> TrainingCosts:
        """All of them longer."""
        return TrainingCosts(**{field.name: factor * getattr(self, field.name) for field in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopCosts:
    """What transformers' ``generate`` does between two steps, µs on the reference core: which token comes next, longer
    inputs, whether all sequences have ended. ``least`` takes the likeliest token (23 operators), ``most`` draws one
    after a repetition penalty, a temperature, top-k and top-p (67 operators); ``usual`` lies midway, since what a
    model's ``generation_config`` asks for is not known. Timed with transformers 5.23 outside the forward pass, on a
    machine on which a view takes the 2.6 µs of the reference core; kernels of a GPU take none of it."""

    least: float = 300.0
    usual: float = 850.0
    most: float = 1400.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # a table is itself alone: the key of what is kept by it
class HostCosts:
    """Host time by part, in µs on the reference core.

    ``module``       one call of an ``nn.Module``, from Python
    ``allocation``   one result in the caching allocator
    ``launch``       one further kernel of an operator; the first is part of the class
    ``conversion``   one conversion between NCHW and NHWC within cuDNN's call, with descriptors of its own
    ``inner``        one operator that another calls: the bias of a convolution, a copy to contiguous memory
    ``cast``         one cast that autocast inserts: an operator of its own inside the dispatcher
    ``autocast``     one look of autocast at an operator's arguments, and into its cache of cast weights
    ``classes``      one operator, by class
    ``training``     what a training step asks besides
    ``loop``         what writing text asks between its steps
    """

    module: float
    allocation: float
    launch: float
    conversion: float
    inner: float
    cast: float
    autocast: float
    classes: Mapping[str, float]
    compiled: CompiledCosts = CompiledCosts()
    reduce_overhead: CapturedCosts = CapturedCosts(call=53.0, statistics=15.6, gap_us=1.7)
    cudagraph: CapturedCosts = CapturedCosts(call=53.0, statistics=25.3, gap_us=0.5)
    #: Between two steps of a serving library: scheduler, inputs, sampler, detokenizer, in Python. Fitted with the start
    #: of Marlin's products to vLLM's public speeds of Qwen2.5 (``benchmarks/decode_accuracy.py --engine vllm``).
    serving: CapturedCosts = CapturedCosts(call=636.0, statistics=0.0, gap_us=0.5)
    training: TrainingCosts = TrainingCosts()
    loop: LoopCosts = LoopCosts()

    @property
    def python(self) -> float:
        """What an operator costs less that C++ calls: Python's frame, parsing of arguments, boxing of the result."""
        return self.classes["pointwise"] - self.inner


#: PyTorch from 2.5 on, where Dynamo checks its guards in C++: set from KernelBench's public timings with 2.5 on six
#: pairs of device and host, one slowdown a pair (``benchmarks/fit_hosts.py``).
MODERN = HostCosts(
    module=0.8,
    allocation=0.8,
    launch=2.0,
    conversion=2.0,
    inner=3.5,
    cast=5.0,
    autocast=0.5,
    classes=MappingProxyType(
        {
            "view": 2.6, "pointwise": 4.0, "movement": 4.5, "concatenation": 5.3, "reduction": 6.5, "pooling": 6.5,
            "normalization": 12.7, "statistics": 20.4, "product": 12.0, "attention": 14.0, "convolution": 17.6,
            "native_convolution": 11.0, "recurrent": 60.0,
        }
    ),
)  # fmt: skip

#: A call of compiled code before that, with guards in Python [µs on the reference core]: 0.7 ms on an i9-10940X,
#: whatever the model (timm's compiled rows with 2.4), of a host at about 1.1 to 1.6 of the reference core's time.
_PYTHON_GUARDS_US = 450.0
#: PyTorch 2.0 to 2.4: the same operators, dearer calls of what is compiled.
EARLY = replace(
    MODERN,
    compiled=CompiledCosts(call=_PYTHON_GUARDS_US),
    reduce_overhead=replace(MODERN.reduce_overhead, call=_PYTHON_GUARDS_US),
    cudagraph=replace(MODERN.cudagraph, call=_PYTHON_GUARDS_US),
)

#: PyTorch 1: set from torchvision's classifiers at batch 12 on four machines (``benchmarks/fit_hosts.py``). Costs and
#: slowdowns share a scale: that of the EPYC 7742's 2.1.
OLD = HostCosts(
    module=0.4,
    allocation=0.6,
    launch=4.0,
    conversion=19.0,
    inner=7.2,
    cast=10.0,
    autocast=1.0,
    classes=MappingProxyType(
        {
            "view": 5.9, "pointwise": 9.3, "movement": 19.4, "concatenation": 6.0, "reduction": 7.7, "pooling": 5.1,
            "normalization": 23.2, "statistics": 33.0, "product": 6.5, "attention": 6.5, "convolution": 18.5,
            "native_convolution": 8.5, "recurrent": 80.0,
        }
    ),
    training=TrainingCosts().times(2.0),  # as a view and a pointwise operator are dearer than PyTorch 2's
)  # fmt: skip


def costs_of(software: Software) -> HostCosts:
    """The table of a release of PyTorch; one that is not named counts as the latest.

    >>> costs_of(Software(torch="1.7.0")) is OLD, costs_of(Software()) is MODERN
    (True, True)
    """
    if software.at_least_torch(2, 5):
        return MODERN
    return EARLY if software.at_least_torch(2, 0) else OLD
