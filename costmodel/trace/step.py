"""Records a training step: forward pass, loss and backward pass, as autograd runs them on the meta device.

Autograd is really there: it decides what runs backward, in which order and what is saved, so that functions of one's
own, checkpoints, frozen and tied parameters come out as PyTorch would run them. The recorder sees what autograd hands
to the dispatcher, which for the forward pass means operators one level below those of inference: ``addmm`` on a
transposed view for ``linear``. Where CUDA runs another operator than meta does, :mod:`costmodel.trace.as_on_device`
calls that one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes

from costmodel.errors import TraceError
from costmodel.execution import NodePhase
from costmodel.trace.as_on_device import AsOnDevice
from costmodel.trace.loss import loss_of
from costmodel.trace.meta_kernels import register
from costmodel.trace.raw import RawNode, RawTrace, indices_in
from costmodel.trace.recorder import Recorder, Where
from costmodel.trace.schema import Schema
from costmodel.trace.substrate import Call

__all__ = ["StepRecorder"]

_ACCUMULATES = "torch::autograd::AccumulateGrad"
#: What autograd calls to keep a gradient as ``.grad`` where somebody else (here: the recorder) holds on to it.
_KEEPING = frozenset({"aten.new_empty_strided", "aten.clone", "aten.copy"})
#: Operators of a sparse gradient that give its values (0) or its places (1), or keep it as it is.
_OF_SPARSE = {"aten._values": 0, "aten._indices": 1, "aten.clone": 0, "aten.detach": 0}
#: Operators whose heads PyTorch pads to the width that they take.
_PADDED = frozenset({"aten._scaled_dot_product_flash_attention", "aten._scaled_dot_product_flash_attention_backward"})


class StepRecorder(Recorder):
    """A recorder of a whole step. :meth:`step` takes the result of the forward pass and runs the rest.

    The loss is that of :func:`~costmodel.trace.loss.loss_of`; a note says which.
    """

    own_loss: Callable[[Any], torch.Tensor] | None = None

    def __init__(self, *how: Any, **named: Any) -> None:
        super().__init__(*how, **named)
        register()
        self._forward_of: dict[int, int] = {}  # autograd's number of a call -> its node
        self._is_backward = False
        self.watches_holders = False
        self._put_out: list[int] = []  # what the forward pass gave
        self._rows_of: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # values of a sparse gradient, and its rows

    # -- whose call ----------------------------------------------------------------------------

    def where(self) -> Where:
        """The module whose forward pass is running; backward, that of the node that autograd differentiates."""
        if not self._is_backward or torch.is_grad_enabled():
            # The number of a call's gradient function is taken before the call is made. A call without one comes
            # later and finds the number used. Backward, only a checkpoint computes with gradients: the forward again.
            self._forward_of.setdefault(torch.autograd._get_sequence_nr() - 1, len(self.trace.nodes))  # type: ignore[attr-defined]
            again = NodePhase.BACKWARD if self._is_backward else NodePhase.FORWARD
            return Where(*self.modules[-1], again)
        function = torch._C._current_autograd_node()
        forward = None if function is None else self._forward_of.get(function._sequence_nr())
        if forward is None:
            return Where(*self.modules[-1], NodePhase.BACKWARD)
        node = self.trace.nodes[forward]
        return Where(node.module, node.module_type, NodePhase.BACKWARD, forward)

    # -- what autograd does for itself ---------------------------------------------------------

    def is_handed_over(self, tensor: torch.Tensor) -> bool:
        """A detach is another name: autograd detaches what it saves and what it hands out."""
        return True

    def record(self, schema: Schema, call: Call) -> None:
        """Record a call, unless it keeps a gradient that PyTorch would take over as it is."""
        if self._is_backward and self._is_of_sparse_gradient(schema, call):
            return
        if self._is_backward and schema.op in _KEEPING and (variable := _accumulating()) is not None:
            target, source = call.result, call.args[1] if schema.op == "aten.copy" else call.args[0]
            if _may_be_taken_over(source, variable):
                self.alias(target, source)
                return
        super().record(schema, call)
        if schema.op in _PADDED and (width := self._width_before_padding()) is not None:
            self.trace.nodes[-1].arguments["head_width"] = width

    def _is_of_sparse_gradient(self, schema: Schema, call: Call) -> bool:
        """Whether a call makes a sparse gradient of rows and their places, takes it apart, or keeps it: nothing runs.
        The gradient is another name of its values, whose rows are remembered."""
        if schema.op == "aten._sparse_coo_tensor_with_dims_and_tensors" and call.args[0] == 1:
            places, values = call.args[3:5]
            self.alias(call.result, values)
            self._rows_of[self.lookup(values)] = (values, places)
            return True
        source = call.args[0] if call.args else None
        if not isinstance(source, torch.Tensor) or not source.is_sparse:
            return False
        known = self._rows_of.get(self.lookup(source))
        if known is None or schema.op not in _OF_SPARSE:
            return False
        self.alias(call.result, known[_OF_SPARSE[schema.op]])
        return True

    def _width_before_padding(self) -> int | None:
        """Width of the heads that the model has, where the last node is attention of heads that were padded for it."""
        query = self.trace.tensors[self.trace.nodes[-1].arguments["query"].index]
        maker = None if query.producer is None else self.trace.nodes[query.producer]
        if maker is None or maker.op != "aten.constant_pad_nd":
            return None
        return self.trace.tensors[maker.arguments["input"].index].shape[-1]

    # -- loss and backward pass ----------------------------------------------------------------

    def step(self, result: Any) -> torch.Tensor:
        """Loss and backward pass of a forward pass that gave ``result``; the loss.

        Raises TraceError where nothing depends on a parameter that is trained.
        """
        leaves = pytree.tree_leaves(result)
        self._put_out = [self.lookup(leaf) for leaf in leaves if isinstance(leaf, torch.Tensor)]
        self.doing = "loss"
        loss, note = loss_of(result, self.own_loss, self._target)
        self.note(note)
        if not loss.requires_grad:
            raise TraceError("no output depends on a parameter that takes a gradient, so nothing is trained")
        self._is_backward, self.doing = True, "backward pass"
        self.guard = None  # its calls are as many as the forward pass made
        self.modules.append(("", ""))
        try:
            loss.backward()  # type: ignore[no-untyped-call]
        finally:
            self.modules.pop()
        return loss

    def _target(self, logits: torch.Tensor) -> torch.Tensor:
        """Class indices for logits: an input of the step that no forward pass takes."""
        with _disable_current_modes():  # not a call of the model's
            target = torch.empty(logits.shape[0], dtype=torch.int64, device="meta")
        self.trace.inputs.append(self.add(target, "input", "target"))
        return target

    def finish(self, module: nn.Module) -> None:
        """Name the gradients, and let accumulations of gradients be made in place where autograd makes them so.

        What the model put out is the caller's, who holds it while the loss is taken back: it counts as put out, after
        the loss.
        """
        self.trace.outputs += [t for t in dict.fromkeys(self._put_out) if t not in self.trace.outputs]
        for name, parameter in module.named_parameters():
            if parameter.grad is not None:
                self.trace.gradients[name] = made = self.lookup(parameter.grad)
                if parameter.grad.is_sparse:
                    if made not in self._rows_of:
                        raise TraceError(
                            f"the gradient of {name} is a sum of sparse tensors, which is not modelled\n"
                            "  make the layer with sparse=False"
                        )
                    self.trace.sparse_rows[name] = self.lookup(self._rows_of[made][1])
        accumulate_in_place(self.trace)

    @contextmanager
    def as_on_device(self) -> Iterator[None]:
        """Operators that the device runs otherwise than meta does, for the while."""
        with AsOnDevice(self.device).running():
            yield


def _accumulating() -> torch.Tensor | None:
    """The parameter whose gradient autograd is about to keep, if it is."""
    function = torch._C._current_autograd_node()
    if function is None or function.name() != _ACCUMULATES:
        return None
    return function.variable  # type: ignore[attr-defined, no-any-return]


def _may_be_taken_over(gradient: torch.Tensor, variable: torch.Tensor) -> bool:
    """Whether a gradient lies as its parameter does; PyTorch copies one that does not
    (``torch/csrc/autograd/utils/grad_layout_contract.h``)."""
    pairs = zip(gradient.stride(), variable.stride(), gradient.shape, strict=True)
    return all(mine == its for mine, its, size in pairs if size != 1)


def accumulate_in_place(trace: RawTrace) -> None:
    """Mark sums of two gradients that autograd makes in the storage of the first (``InputBuffer::add``): nobody reads
    it later, and it is dense. Under a dispatch mode PyTorch itself makes them out of place."""
    last_read: dict[int, int] = {}
    for position, node in enumerate(trace.nodes):
        for read in indices_in(list(node.arguments.values())):
            last_read[trace.tensors[read.index].storage] = position
    kept = {trace.tensors[index].storage for index in (*trace.gradients.values(), *trace.outputs)}
    made_by = {t.storage: t.producer for t in reversed(trace.tensors) if t.role == "activation"}
    moved: dict[int, int] = {}
    for position, node in enumerate(trace.nodes):
        if not _adds_gradients(node, trace):
            continue
        first = trace.tensors[next(indices_in(node.arguments["input"])).index]
        target = trace.tensors[node.outputs[0].index]
        maker = made_by.get(first.storage)
        own = maker is not None and trace.nodes[maker].phase is NodePhase.BACKWARD
        if own and last_read[first.storage] == position and first.storage not in kept and _is_whole(first, trace):
            node.in_place = True
            moved[target.storage] = moved.get(first.storage, first.storage)
            kept.add(first.storage) if target.storage in kept else None
    for each in trace.tensors:
        each.storage = moved.get(each.storage, each.storage)


def _adds_gradients(node: RawNode, trace: RawTrace) -> bool:
    if node.op != "aten.add" or node.phase is not NodePhase.BACKWARD or node.in_place or len(node.arguments) != 2:
        return False
    operands = list(indices_in(list(node.arguments.values())))
    shapes = {trace.tensors[i.index].shape for i in (*operands, *node.outputs)}
    return len(operands) == 2 and len(shapes) == 1


def _is_whole(tensor: Any, trace: RawTrace) -> bool:
    """Whether a tensor is dense and all of its storage."""
    size = 1
    for extent, stride in sorted(zip(tensor.shape, tensor.strides, strict=True), key=lambda pair: pair[1]):
        if extent != 1 and stride != size:
            return False
        size *= extent
    nbytes, _, _ = trace.storages[tensor.storage]
    return bool(nbytes == size * getattr(torch, tensor.dtype).itemsize)
