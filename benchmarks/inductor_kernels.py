"""The kernels of compiled models beside those of Inductor's own scheduler, for a GPU that is not there.

    pip install triton && python benchmarks/inductor_kernels.py                   # networks of many families
    python benchmarks/inductor_kernels.py timm:resnet50 timm:densenet121 --batch 64 --dtype fp32

torch.compile decides on fake tensors what it fuses; only the generated code needs the device. So its lowering and its
scheduler run here as they are, on fake CUDA tensors and with the properties of an RTX 4090, and stop before code is
generated. Both sides count generated kernels (a reduction that is split counts as two there), library calls are left
out, and the bytes that cross the border of a generated kernel: whole tensors, also where a kernel reads a slice. Two
figures are not comparable: attention is one opaque operator here, and operators that ask a real device for something
fail, by name. A column "of 2.13" is what this release of torch does; rows of measurements are mostly of 2.9.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any
from unittest import mock

#: Of many families: plain, grouped and depthwise convolutions, joins, gates, attention written out and fused.
MODELS = (
    "resnet50 resnetv2_50 regnety_040 mobilenetv2_100 mobilenetv4_conv_small efficientnet_b0 densenet121 "
    "ese_vovnet19b_dw hgnet_tiny cs3darknet_m selecsls42 dla34 inception_v3 hrnet_w18_small res2net50_26w_4s "
    "resnest14d ghostnet_100 poolformer_s12 convnext_nano caformer_s18 focalnet_tiny_srf starnet_s1 fastvit_t8 "
    "mobilevit_s mixer_b16_224 vit_tiny_patch16_224 eva02_tiny_patch14_224 xcit_tiny_12_p16_224 rdnet_tiny "
    "mambaout_femto"
).split()
#: An RTX 4090, as ``torch.cuda.get_device_properties`` describes it.
BOARD = SimpleNamespace(
    name="NVIDIA GeForce RTX 4090", major=8, minor=9, multi_processor_count=128, total_memory=24 << 30, warp_size=32,
    regs_per_multiprocessor=65536, max_threads_per_multi_processor=1536, L2_cache_size=72 << 20, gcnArchName="",
    is_integrated=False, shared_memory_per_block=49152, shared_memory_per_block_optin=101376,
    max_threads_per_block=1024, shared_memory_per_multiprocessor=102400, uuid="", clock_rate=2520000,
    memory_clock_rate=10501000, memory_bus_width=384,
)  # fmt: skip


class _SchedulingIsDone(Exception):
    """Raised in place of generating code."""


@contextlib.contextmanager
def a_board_that_is_not_there() -> Iterator[None]:
    """CUDA as torch sees it, as far as fake tensors, lowering and scheduling ask."""
    import torch
    from torch._dynamo import device_interface
    from torch._dynamo import utils as dynamo_utils
    from torch._functorch import aot_autograd
    from torch._inductor.fx_passes import fuse_attention, misc_patterns, pad_mm
    from torch._subclasses import fake_tensor

    def says(value: Any) -> Any:
        return lambda *args, **kwargs: value

    interface = device_interface.CudaInterface
    patches = [
        mock.patch.multiple(
            torch.cuda, is_available=says(True), device_count=says(1), current_device=says(0), _lazy_init=says(None),
            get_device_properties=says(BOARD), get_device_capability=says((8, 9)), is_initialized=says(True),
            is_bf16_supported=says(True), synchronize=says(None), get_device_name=says(BOARD.name),
            _exchange_device=says(0), _maybe_exchange_device=says(0), set_device=says(None),
            get_rng_state=says(torch.zeros(16, dtype=torch.uint8)), set_rng_state=says(None),
        ),
        mock.patch.multiple(
            interface, get_device_properties=says(BOARD), is_available=says(True), current_device=says(0),
            get_compute_capability=says(89),
        ),
        mock.patch.multiple(interface.Worker, get_device_properties=says(BOARD), current_device=says(0)),
        mock.patch.object(torch.version, "cuda", "12.8"),
        mock.patch.object(fake_tensor, "init_gpu_context", says(None)),
        mock.patch.object(aot_autograd, "preserve_rng_state", contextlib.nullcontext),
        mock.patch.object(dynamo_utils, "preserve_rng_state", contextlib.nullcontext),
        # Patterns are traced on real tensors; what they look for (attention written out, odd sizes) is not asked here.
        mock.patch.object(fuse_attention, "_sfdp_init", says(None)),
        mock.patch.object(misc_patterns, "_misc_patterns_init", says(None)),
        mock.patch.object(pad_mm, "_pad_mm_init", says(None)),
        mock.patch.object(torch._C, "_conv_determine_backend_memory_format", _format_of_cudnn),
        mock.patch.object(torch.nn.functional, "scaled_dot_product_attention", _opaque_attention()),
    ]  # fmt: skip
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        yield


def _format_of_cudnn(x: Any, weight: Any, backend: Any) -> Any:
    """cuDNN keeps channels_last where one operand is (``cudnn_conv_suggest_memory_format``); this build has none."""
    import torch

    def is_last(tensor: Any) -> bool:
        dense = tensor.is_contiguous(memory_format=torch.channels_last)
        return tensor.dim() == 4 and dense and not tensor.is_contiguous()

    return torch.channels_last if is_last(x) or is_last(weight) else torch.contiguous_format


def _opaque_attention() -> Any:
    """Fused attention as one operator that nobody looks into; its results lie as those of FlashAttention."""
    import torch

    library = torch.library.Library("costmodel_benchmark", "FRAGMENT")
    with contextlib.suppress(RuntimeError):  # defined by an earlier run
        library.define("attention(Tensor q, Tensor k, Tensor v, Tensor? mask) -> Tensor")
    name = "costmodel_benchmark::attention"

    @torch.library.register_fake(name, allow_override=True)
    def _(q: Any, k: Any, v: Any, mask: Any) -> Any:
        return q.new_empty(q.shape[0], q.shape[2], q.shape[1], v.shape[-1]).transpose(1, 2)

    def attention(q: Any, k: Any, v: Any, attn_mask: Any = None, *args: Any, **kwargs: Any) -> Any:
        if torch.is_autocast_enabled("cuda"):
            dtype = torch.get_autocast_dtype("cuda")
            q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
        mask = None if attn_mask is None else attn_mask.to(q.dtype)
        return torch.ops.costmodel_benchmark.attention(q, k, v, mask)

    attention.library = library  # type: ignore[attr-defined]  # lives as long as its operator may be called
    return attention


def _indexed(x: Any, index: Any) -> Any:
    """``x[index]`` by operators: Python's own indexing asks for a device guard, which this build has not."""
    import torch

    aten = torch.ops.aten
    given = index if isinstance(index, tuple) else (index,)
    named = sum(1 for i in given if i is not None and i is not Ellipsis)
    parts: list[Any] = []
    for part in given:
        parts += [slice(None)] * (x.dim() - named) if part is Ellipsis else [part]
    at, lookups = 0, []
    for part in parts:
        if part is None:
            x, at = aten.unsqueeze.default(x, at), at + 1
        elif isinstance(part, int):
            x = aten.select.int(x, at, part)
        elif isinstance(part, slice):
            if part != slice(None):
                stop = sys.maxsize if part.stop is None else part.stop
                x = aten.slice.Tensor(x, at, part.start or 0, stop, part.step or 1)
            at += 1
        else:
            lookups += [None] * (at - len(lookups)) + [part]
            at += 1
    return aten.index.Tensor(x, lookups) if lookups else x


def scheduled(module: Any, inputs: Sequence[Any], dtype: str) -> Any:
    """Inductor's graph of a module (on meta) after scheduling, for fake CUDA tensors like ``inputs``."""
    import torch
    from torch._inductor.compile_fx import compile_fx
    from torch._inductor.graph import GraphLowering
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
    from torch.func import functional_call
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.overrides import TorchFunctionMode

    class Indexing(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return _indexed(*args) if func is torch.Tensor.__getitem__ else func(*args, **(kwargs or {}))

    fake, found = FakeTensorMode(allow_non_fake_inputs=True), []
    half = {"amp_fp16": torch.float16, "amp_bf16": torch.bfloat16}.get(dtype)

    def stop(graph: Any) -> None:
        graph.init_wrapper_code()
        graph._update_scheduler()
        found.append(graph)
        raise _SchedulingIsDone

    def on_board(tensor: Any) -> Any:
        like = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
        return FakeTensor(fake, like, torch.device("cuda:0"))

    with torch.no_grad(), fake, mock.patch.object(GraphLowering, "codegen", stop):
        state = {n: on_board(t) for n, t in (*module.named_parameters(), *module.named_buffers())}

        def run(*values: Any) -> tuple[Any, ...]:
            held = dict(zip(state, values[: len(state)], strict=True))
            with torch.autocast("cuda", dtype=half, enabled=half is not None), Indexing():
                result = functional_call(module, held, values[len(state) :])
            return tuple(result) if isinstance(result, (tuple, list)) else (result,)

        everything = [*state.values(), *map(on_board, inputs)]
        traced = make_fx(run, tracing_mode="real")(*everything)
        try:
            compile_fx(traced, everything)
        except Exception:  # ours, as Inductor wraps it, or one that stopped it before
            if not found:
                raise
    return found[0]


def of_inductor(graph: Any) -> tuple[int, int]:
    """Generated kernels of a scheduled graph, and B that cross their borders."""
    from torch._inductor.scheduler import ExternKernelSchedulerNode, NopKernelSchedulerNode

    def nbytes(name: str) -> int:
        layout = (graph.try_get_buffer(name) or graph.graph_inputs[name]).get_layout()
        count = layout.dtype.itemsize
        for size in layout.size:
            count *= int(size)
        return count

    outputs, kernels, moved = set(graph.get_output_names()), 0, 0
    for node in graph.scheduler.nodes:
        if isinstance(node, (ExternKernelSchedulerNode, NopKernelSchedulerNode)):
            continue
        parts = node.get_nodes()
        names = {part.get_name() for part in parts}
        made = {buffer.get_name() for part in parts for buffer in part.get_outputs()}
        read = {dep.name for part in parts for dep in part.read_writes.reads} - made
        users = {b: graph.scheduler.name_to_buf[b].users for b in made}
        kept = [b for b in made if b in outputs or any(user.get_name() not in names for user in users[b])]
        if kept:
            kernels += 1
            moved += sum(map(nbytes, (*read, *kept)))
    return kernels, moved


def of_costmodel(request: str, batch: int, dtype: str) -> tuple[int, int]:
    """The same of the kernels that costmodel expects."""
    import costmodel

    rows = costmodel.analyze(request, hw="rtx4090", batch=batch, dtype=dtype, mode="compile").kernels
    generated = [
        row for row in rows if row.algorithm.startswith("fused_") or row.algorithm in ("cast", "contiguous_copy")
    ]
    return len(generated), sum(row.bytes_read + row.bytes_written for row in generated)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--dtype", choices=("fp32", "amp_fp16", "amp_bf16"), default="amp_fp16")
    parser.add_argument("models", nargs="*", default=[f"timm:{name}" for name in MODELS])
    arguments = parser.parse_args()
    try:
        import triton  # noqa: F401 - Inductor asks for it before it lowers for a GPU
    except ImportError:
        print("triton is not installed: pip install triton", file=sys.stderr)
        return 2
    import torch

    from costmodel.sources import resolve

    print(f"{'model':34}{'kernels':>18}{'MB':>22}{'ours over':>12}\n{'':34}{'ours, torch ' + torch.__version__[:4]:>18}"
          f"{'ours, torch ' + torch.__version__[:4]:>22}{'its bytes':>12}")  # fmt: skip
    failed = 0
    for request in arguments.models:
        loaded = resolve(request)
        inputs, _ = loaded.inputs({"batch": arguments.batch})
        kernels, moved = of_costmodel(request, arguments.batch, arguments.dtype)
        try:
            with a_board_that_is_not_there():
                theirs, their_bytes = of_inductor(scheduled(loaded.module, inputs, arguments.dtype))
        except Exception as error:  # whatever Inductor meets without a device: named, and the next one
            failed += 1
            print(f"{request:34}not scheduled: {str(error).partition(chr(10))[0][:80]}", flush=True)
            continue
        print(f"{request:34}{kernels:>9}{theirs:>9}{moved / 1e6:>11.1f}{their_bytes / 1e6:>11.1f}"
              f"{moved / their_bytes:>12.3f}", flush=True)  # fmt: skip
    print(f"{len(arguments.models) - failed} models, {failed} not scheduled without a device")
    return 0


if __name__ == "__main__":
    sys.exit(main())
