"""``costmodel calibrate -o FILE.toml``: measure this machine and write its hardware profile, or its host's alone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from costmodel.cli import arguments as common
from costmodel.errors import InputError

__all__ = ["add", "run"]

DEVICES = ("cpu", "cuda")


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("calibrate", help="measure this machine and write its hardware profile")
    parser.add_argument(
        "-o", "--output", required=True, type=_profile_path, metavar="FILE.toml", help="the profile to write"
    )
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="what to measure (default: cpu)")
    parser.add_argument(
        "--host-only", action="store_true",
        help="only how long PyTorch's own code takes on this CPU, as --host reads it: seconds, and no GPU needed",
    )  # fmt: skip
    parser.add_argument("--name", help="the profile's name (default: that of the file)")
    parser.add_argument(
        "--threads", type=common.positive, metavar="N", help="CPU threads (default: torch's own choice)"
    )
    parser.add_argument(
        "--seconds", type=common.positive, default=75, metavar="S", help="time for the rounds over all operators"
    )
    parser.add_argument(
        "--max-spread", type=common.positive, default=35, metavar="PERCENT",
        help="repeat where timings scatter by more; if they still do, predictions get wider intervals (default: 35)",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, then write in one piece; an interrupted calibration leaves the old file as it was."""
    from costmodel.report import check_writable
    from costmodel.report.output import put

    path: Path = arguments.output
    check_writable(str(path))
    notes: list[str] = []
    with _progress() as progress:
        text = _measured(arguments, progress, notes.append)
    put(text, path)
    for note in notes:
        print(f"costmodel: {note}", file=sys.stderr)
    print(f"wrote {path}; use it as {'--host' if arguments.host_only else '--hw'} {path}")
    return 0


def _measured(
    arguments: argparse.Namespace, progress: Callable[[str, int, int], None], tell: Callable[[str], None]
) -> str:
    """The profile as TOML; ``tell`` takes what the user must know of it."""
    from costmodel import __version__

    words = ["costmodel calibrate", *["--host-only"] * arguments.host_only, f"-o {arguments.output.name}"]
    words += [f"--device {arguments.device}"] * (arguments.device != "cpu")
    name, command = arguments.name or arguments.output.stem, " ".join(words)
    if arguments.host_only:
        from costmodel.measure.calibrate_host import calibrate_host

        return calibrate_host(name, command=command, version=__version__, device=arguments.device, progress=progress)
    if arguments.device == "cuda":
        from costmodel.measure.calibrate_cuda import calibrate_cuda

        return calibrate_cuda(name, command=command, version=__version__, progress=progress)
    from costmodel.measure.calibrate import calibrate_cpu

    return calibrate_cpu(
        name,
        command=command,
        version=__version__,
        threads=arguments.threads,
        seconds=arguments.seconds,
        most_spread=arguments.max_spread / 100,
        progress=progress,
        tell=tell,
    )


def _profile_path(text: str) -> Path:
    if not text.endswith(".toml"):
        raise argparse.ArgumentTypeError(f"a hardware profile ends in .toml; {text!r} does not")
    return Path(text)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on standard error, one for each phase; plain silence where nobody watches."""
    try:
        from tqdm import tqdm  # type: ignore[import-untyped]
    except ImportError as error:  # it comes with timm
        raise InputError("the progress bar needs tqdm\n  pip install tqdm") from error
    bar = tqdm(disable=not common.watched(), leave=False, bar_format="{desc}: {bar} {n_fmt}/{total_fmt} {elapsed}")

    def show(phase: str, done: int, count: int) -> None:
        bar.total, bar.n = count, done
        bar.set_description_str(phase)

    try:
        yield show
    finally:
        bar.close()
