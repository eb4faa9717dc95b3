"""Parameters: what an optimizer sees of a training graph, in torch's groups, and the calls that it makes for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from costmodel.execution import Optimizer
from costmodel.graph import OpGraph
from costmodel.optimizer import recipes
from costmodel.optimizer.recipes import COUNTER, Line
from costmodel.optimizer.weave import Ref, Weave
from costmodel.symbols import product
from costmodel.tensor import Role

__all__ = ["Parameter", "groups_of", "parameters_of", "step_for_each", "step_for_lists", "step_fused", "step_in_bytes"]


@dataclass(slots=True)
class Parameter:
    """One parameter with a gradient: its name, and by word the tensors that a step has for it, as they are by now."""

    name: str
    tensors: dict[str, int] = field(default_factory=dict)

    @property
    def module(self) -> str:
        """The module that holds it."""
        return self.name.rpartition(".")[0]


def parameters_of(graph: OpGraph) -> list[Parameter]:
    """Parameters with a gradient, in the module's order, which is the order in which an optimizer goes through them."""
    found = {t.name: i for i, t in reversed(list(enumerate(graph.tensors))) if t.producer is None and t.name}
    order = [name for name in graph.parameters if name in graph.gradients]
    order += [name for name in graph.gradients if name not in graph.parameters]
    return [Parameter(name, {"param": found[name], "grad": graph.gradients[name]}) for name in order if name in found]


def give_states(weave: Weave, parameters: Sequence[Parameter], optimizer: Optimizer, counter: Role) -> None:
    """Gives each parameter its states, ``zeros_like`` it, and its count of steps, which lies where ``counter`` says."""
    for parameter in parameters:
        for state in optimizer.states:
            name = f"{parameter.name}.{state}"
            parameter.tensors[state] = weave.like(parameter.tensors["param"], Role.STATE, name)
        if recipes.counts_steps(optimizer):
            parameter.tensors[COUNTER] = weave.scalar("float32", counter, f"{parameter.name}.{COUNTER}")


def groups_of(weave: Weave, parameters: Sequence[Parameter], word: str = "param") -> list[list[Parameter]]:
    """Parameters by the dtype of what ``word`` says, in the order in which dtypes first occur, as torch's
    ``_group_tensors_by_device_and_dtype`` has them."""
    groups: dict[str, list[Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(weave.dtype(parameter.tensors[word]), []).append(parameter)
    return list(groups.values())


def step_for_lists(weave: Weave, parameters: Sequence[Parameter], optimizer: Optimizer, counter: Role) -> None:
    """``foreach=True``: one call a line for each group."""
    give_states(weave, parameters, optimizer, counter)
    for group in groups_of(weave, parameters):
        for line in recipes.for_lists(optimizer):
            _call(weave, f"aten._foreach_{line.op}", line, group, as_lists=True, name=f"optimizer.{_word(line)}")


def step_for_each(weave: Weave, parameters: Sequence[Parameter], optimizer: Optimizer, counter: Role) -> None:
    """``foreach=False``: all lines for one parameter, then for the next."""
    give_states(weave, parameters, optimizer, counter)
    for parameter in parameters:
        for line in recipes.for_each(optimizer):
            name = f"{parameter.name}.{_word(line)}"
            _call(weave, f"aten.{line.op}", line, [parameter], as_lists=False, name=name)


def _word(line: Line) -> str:
    """What a call is about, for its node's name: the tensor that it writes or makes, and how."""
    return f"{line.makes or line.tensors['input']}.{line.op}"


def _call(weave: Weave, op: str, line: Line, group: Sequence[Parameter], *, as_lists: bool, name: str) -> None:
    lists = {argument: [Ref(p.tensors[word]) for p in group] for argument, word in line.tensors.items()}
    arguments: dict[str, Any] = {argument: refs if as_lists else refs[0] for argument, refs in lists.items()}
    arguments |= line.plain if line.scalars is None else {"scalars": [line.scalars] * len(group)}
    arguments |= {"in_place": True} if as_lists and not line.makes else {}  # a kernel has room for so many lists
    target = line.tensors["input"]
    old = [p.tensors[target] for p in group]
    module = "" if as_lists else group[0].module
    made = [weave.like(t, Role.ACTIVATION) for t in old] if line.makes else []
    new = weave.call(op, arguments, writes=() if line.makes else old, makes=made, name=name, module=module)
    for parameter, tensor in zip(group, new, strict=True):
        parameter.tensors[line.makes or target] = tensor


def step_fused(
    weave: Weave, parameters: Sequence[Parameter], optimizer: Optimizer, scale: int | None, found_inf: int | None
) -> None:
    """``fused=True``: one call for each group, which scales gradients too where it is told how; counts of steps lie on
    the device, and go back by ``found_inf`` where the step was not made."""
    give_states(weave, parameters, optimizer, Role.STATE)
    op, lists, numbers = recipes.fused(optimizer)
    counts = recipes.counts_steps(optimizer)
    scaling = {} if scale is None or found_inf is None else {"grad_scale": Ref(scale), "found_inf": Ref(found_inf)}
    words = ["param", *(["grad"] if scaling else []), *optimizer.states]
    for group in groups_of(weave, parameters):
        if counts:
            line = Line("add", {"input": COUNTER}, {"scalar": 1})
            _call(weave, "aten._foreach_add", line, group, as_lists=True, name="optimizer.step.add")
        refs = {name: [Ref(p.tensors[word]) for p in group] if word else [] for name, word in lists.items()}
        places = [(p, word) for word in words for p in group]
        old = [p.tensors[word] for p, word in places]
        new = weave.call(f"aten._{op}", {**refs, **numbers, **scaling}, writes=old, name=f"optimizer.{op}")
        for (parameter, word), tensor in zip(places, new, strict=True):
            parameter.tensors[word] = tensor
        if counts and scaling and found_inf is not None:
            back = {"input": [Ref(p.tensors[COUNTER]) for p in group], "other": [Ref(found_inf)] * len(group)}
            weave.call("aten._foreach_sub", back, writes=[p.tensors[COUNTER] for p in group], name="optimizer.step.sub")


#: Of bitsandbytes 0.45 (``Optimizer2State``, blockwise): elements that share a scale, and of which a parameter has at
#: least so many that its states are bytes.
_BLOCK, _LEAST_IN_BYTES = 256, 4096


def step_in_bytes(weave: Weave, parameters: Sequence[Parameter]) -> None:
    """bitsandbytes' Adam8bit (Dettmers et al. 2022, arXiv 2110.02861): one kernel a parameter, both moments as bytes
    with a scale for each block; small parameters keep moments in fp32. Steps are counted in Python."""
    for parameter in parameters:
        param, name = parameter.tensors["param"], parameter.name
        elements = int(product(weave.specs[weave.tensors[param].spec].shape))  # type: ignore[call-overload]
        in_bytes = elements >= _LEAST_IN_BYTES
        words = {"state1": "exp_avg", "state2": "exp_avg_sq"}
        for word, state in words.items():
            dtype = "uint8" if in_bytes else "float32"
            parameter.tensors[word] = weave.like(param, Role.STATE, f"{name}.{state}", dtype)
            if in_bytes:
                blocks = -(-elements // _BLOCK)
                scale = weave.flat(blocks, "float32", Role.STATE, f"{name}.{state}_scale")
                parameter.tensors[f"absmax{word[-1]}"] = scale
        kept = [word for word in ("param", "state1", "state2", "absmax1", "absmax2") if word in parameter.tensors]
        arguments = {"input" if word == "param" else word: Ref(parameter.tensors[word]) for word in kept}
        arguments["grad"] = Ref(parameter.tensors["grad"])
        writes = [parameter.tensors[word] for word in kept]
        weave.call("bitsandbytes.adam_blockwise", arguments, writes=writes, name=f"{name}.adam8bit",
                   module=parameter.module)  # fmt: skip
