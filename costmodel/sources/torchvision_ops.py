"""torchvision beside a torch that its compiled operators do not fit.

torchvision's PyPI wheel is compiled against one build of torch. Beside another (a CPU-only torch, say), its ``_C``
library does not load, no ``torchvision::`` operator exists, and ``import torchvision`` itself fails because it
registers a fake kernel for ``torchvision::nms``. timm imports torchvision and fails with it.

The least that mends this, done only where ``_C`` really cannot load:

1. define the schemas of its operators before the import, as ``_C`` would;
2. register torchvision's own shape functions (``torchvision/_meta_registrations.py``) as their meta kernels, so that
   ``deform_conv2d``, ``roi_align`` and the like can be traced;
3. give the CPU plain kernels for those that detectors run (:mod:`costmodel.sources.torchvision_kernels`). Running
   another one on real tensors still fails, with torch's message that names the operator;
4. tell autograd their backward operators (:mod:`costmodel.sources.torchvision_gradients`);
5. let ``torchvision.extension._has_ops`` say that operators exist, which its wrappers ask before every call.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costmodel.sources.torchvision_gradients import BACKWARD_SCHEMAS, register_gradients

if TYPE_CHECKING:
    from torch.library import Library

__all__ = ["make_importable"]

#: torchvision/csrc/ops/*.cpp, TORCH_LIBRARY_FRAGMENT(torchvision, m); forward operators.
SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
    "int sampling_ratio, bool aligned) -> Tensor",
    "roi_pool(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width) "
    "-> (Tensor, Tensor)",
    "ps_roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
    "int sampling_ratio) -> (Tensor, Tensor)",
    "ps_roi_pool(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width) "
    "-> (Tensor, Tensor)",
    "deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, SymInt stride_h, "
    "SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, SymInt groups, "
    "SymInt offset_groups, bool use_mask) -> Tensor",
)

#: Those whose shape function torchvision registers itself, compiled operators or not.
_REGISTERED_BY_TORCHVISION = {"nms", "qnms"}

_KEPT_ALIVE: list[Library] = []  # a Library that is collected takes its operators with it


@lru_cache(maxsize=1)
def make_importable() -> bool:
    """Make ``import torchvision`` work; True where stand-in schemas had to be defined.

    Cheap after the first call, and does nothing where torchvision is missing, imported already or fits.
    """
    if "torchvision" in sys.modules or _compiled_operators_load():
        return False
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    _KEPT_ALIVE.append(library)
    for schema in (*SCHEMAS, *BACKWARD_SCHEMAS):
        library.define(schema)
    import torchvision  # noqa: F401

    _register_shapes(library)
    return True


def _compiled_operators_load() -> bool:
    """Whether torchvision's ``_C`` loads into this torch (it then stays loaded, as the import would have it)."""
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True  # nothing to mend: the import will say that torchvision is missing
    import torch

    libraries = [p for p in Path(spec.origin).parent.glob("_C*") if p.suffix in {".so", ".pyd"}]
    try:
        for path in libraries:
            torch.ops.load_library(path)
    except OSError:
        return False
    return bool(libraries)


def _register_shapes(library: Any) -> None:
    import torchvision.ops  # noqa: F401
    from torchvision import _meta_registrations

    from costmodel.sources.torchvision_kernels import KERNELS

    for schema in (*SCHEMAS, *BACKWARD_SCHEMAS):
        name = schema.partition("(")[0]
        if name not in _REGISTERED_BY_TORCHVISION:
            library.impl(name, getattr(_meta_registrations, f"meta_{name.lstrip('_')}"), "Meta")
    for name, kernel in KERNELS.items():
        library.impl(name, kernel, "CPU")
    register_gradients(library)
    for name, module in list(sys.modules.items()):  # some took the function over by name
        if name.startswith("torchvision.") and hasattr(module, "_has_ops"):
            module._has_ops = lambda: True  # type: ignore[attr-defined]
