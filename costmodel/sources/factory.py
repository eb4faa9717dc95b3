"""Your own code: ``path/to/file.py:factory`` and ``package.module:factory``."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from costmodel.errors import InputError, ModelError, UnknownModelError, librarian, near_matches
from costmodel.sources.building import building, reason, to_meta
from costmodel.sources.loaded import LoadedModel
from costmodel.sources.own_module import from_module
from costmodel.sources.registry import Options, source
from costmodel.sources.signatures import check_arguments, check_complete, taken_by_call
from costmodel.sources.torchaudio_library import make_torchaudio_importable
from costmodel.sources.torchvision_ops import make_importable

if TYPE_CHECKING:
    from torch import nn

__all__: list[str] = []

_IMPORTABLE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.\w+)*")


def _claims(request: str) -> bool:
    return ".py:" in request or request.endswith(".py") or bool(_IMPORTABLE.fullmatch(request))


@source("file", claims=_claims)
def load(request: str, options: Options) -> LoadedModel:
    """What the factory returns: a module, ``(module, inputs)`` with inputs as :func:`from_module` takes them, or
    ``(module, inputs, loss)`` with a function that makes a scalar of what the module returns, for training.

    The factory runs on the meta device; where that fails (an initialiser that reads values) it runs again on the
    CPU, and a note says so. Raises UnknownModelError for a missing file, module or attribute; ModelError where the
    code fails or returns no module; InputError where the inputs are not known.
    """
    place, _, attribute = request.rpartition(":") if not request.endswith(".py") else (request, "", "")
    make_importable()  # the code may import torchvision or timm
    make_torchaudio_importable()
    namespace = _import(place)
    factory = _with_arguments(_attribute(namespace, attribute, place), request, options.arguments)
    made, notes = _run(factory, request, namespace.__file__)
    module, inputs, loss = _unpack(made, request)
    loaded = _with_inputs(to_meta(module.eval()), inputs, request, attribute, options)
    loaded.loss = loss
    loaded.source, loaded.notes = request, notes + loaded.notes
    return loaded


def _import(place: str) -> ModuleType:
    if place.endswith(".py"):
        return _import_file(Path(place).expanduser())
    try:
        with building(device=None):
            sys.path.insert(0, "")
            return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name and (place == error.name or place.startswith(f"{error.name}.")):
            raise _unknown_module(place) from error
        raise ModelError(f"importing {place} failed: {reason(error)}") from error
    except Exception as error:
        raise ModelError(f"importing {place} failed{_where(error, None)}: {reason(error)}") from error
    finally:
        sys.path.remove("")


def _unknown_module(place: str) -> UnknownModelError:
    from costmodel.sources.registry import all_sources

    prefixes = [prefix for prefix in all_sources() if prefix not in {"file", "pt2"}]
    return UnknownModelError(
        librarian(
            f"'{place}:' is neither a source of models nor a Python module that can be imported",
            there_is=[f"{prefix}:NAME" for prefix in prefixes],
            near=[f"{hit}:" for hit in near_matches(place, prefixes)],
            do="Your own code is package.module:factory or path/to/file.py:factory.",
        )
    )


def _import_file(path: Path) -> ModuleType:
    """The file as a module of its own; files beside it can be imported, as when Python runs it."""
    if not path.is_file():
        raise UnknownModelError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"costmodel_user_{path.stem}", path.resolve())
    if spec is None or spec.loader is None:
        raise ModelError(f"{path} cannot be imported as Python")
    namespace = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = namespace  # dataclasses and pickling look their module up
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        with building(device=None):
            spec.loader.exec_module(namespace)
    except (Exception, SystemExit) as error:
        raise ModelError(f"importing {path} failed{_where(error, str(path.resolve()))}: {reason(error)}") from error
    finally:
        sys.path.remove(folder)
    return namespace


def _where(error: BaseException, file: str | None) -> str:
    """`` at file.py, line 7``: the last line of the user's file that the error went through."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" at {Path(error.filename).name}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if file and frame.filename == file]
    return f" at {Path(own[-1].filename).name}, line {own[-1].lineno} ({own[-1].line})" if own else ""


def _attribute(namespace: ModuleType, dotted: str, place: str) -> Any:
    public = [
        n for n, v in vars(namespace).items() if callable(v) and getattr(v, "__module__", "") == namespace.__name__
    ]
    if not dotted:
        raise UnknownModelError(
            librarian(f"which part of {place} is the model?", there_is=[f"{place}:{n}" for n in public])
        )
    value: Any = namespace
    for name in dotted.split("."):
        if not hasattr(value, name):
            raise UnknownModelError(
                librarian(
                    f"{place} has no '{dotted}'", there_is=public or "no functions", near=near_matches(name, dir(value))
                )
            )
        value = getattr(value, name)
    return value


def _with_arguments(factory: Any, request: str, arguments: Mapping[str, Any]) -> Any:
    """The factory, called with ``arguments`` when it is called. Raises InputError for arguments that it does not take,
    for one that it needs and does not get, and for arguments to a module, which is there already."""
    from torch import nn

    if isinstance(factory, nn.Module) or not callable(factory):
        if arguments:
            raise InputError(
                f"{request} is a {type(factory).__name__} already, and takes no arguments\n  name a function"
            )
        return factory
    taken, any_other = taken_by_call(factory)
    check_arguments(request, arguments, taken, any_other=any_other)
    check_complete(request, taken, arguments)
    return partial(factory, **arguments) if arguments else factory


def _run(factory: Any, request: str, file: str | None) -> tuple[Any, list[str]]:
    """What the factory returns, and a note where it had to run on the CPU."""
    from torch import nn

    if isinstance(factory, nn.Module):
        return copy.deepcopy(factory), []  # the module in the user's file stays as it is
    if not callable(factory):
        return factory, []
    resolved = str(Path(file).resolve()) if file else None
    try:
        return _call(factory, "meta"), []
    except (Exception, SystemExit) as first:
        try:
            made = _call(factory, None)
        except (Exception, SystemExit) as error:
            raise ModelError(f"{request} failed{_where(error, resolved)}: {reason(error)}") from error
        return made, [f"built on the CPU first, because it fails on the meta device ({reason(first)})"]


def _call(factory: Callable[[], Any], device: str | None) -> Any:
    with building(device):
        return factory()


def _unpack(made: Any, request: str) -> tuple[nn.Module, Any, Callable[[Any], Any] | None]:
    from torch import nn

    parts = made if isinstance(made, tuple) and len(made) in (2, 3) else (made,)
    module, inputs, loss = (*parts, None, None)[:3]
    if not isinstance(module, nn.Module) or not (loss is None or callable(loss)):
        got = f"a tuple of {len(made)}" if isinstance(made, tuple) and len(made) != 2 else type(module).__name__
        do = "It should give a torch.nn.Module, (module, inputs), or (module, inputs, loss) with a function as loss."
        raise ModelError(librarian(f"{request} gives {got}", do=do))
    return module, inputs, loss


def _with_inputs(module: nn.Module, inputs: Any, request: str, name: str, options: Options) -> LoadedModel:
    if inputs is not None:
        return from_module(module, inputs, name=name)
    shape = options.input_shape or _guessed_shape(module, options)
    if shape is None:
        raise InputError(
            librarian(
                f"{request} gives a module without inputs",
                do="Return (module, inputs), or say --input-shape 3,224,224 (no batch), --image-size or --seq-len.",
            )
        )
    return from_module(module, input_shape=shape, name=name)


def _guessed_shape(module: nn.Module, options: Options) -> tuple[int, ...] | None:
    """The shape that an image size or a length in tokens makes with the channels of the first convolution."""
    from torch import nn

    if options.seq_len:
        return (options.seq_len,)
    first = next((m for m in module.modules() if isinstance(m, nn.Conv2d)), None)
    return (first.in_channels, *options.image_size) if options.image_size and first is not None else None
