"""The machine that costmodel runs on, as its driver names it. Nothing is measured and torch is not asked."""

from __future__ import annotations

import shutil
import subprocess

from costmodel.errors import UnknownHardwareError

__all__ = ["this_machine"]

#: What prints the names of the GPUs, one a line.
_ASKED = (
    ("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"),
    ("rocm-smi", "--showproductname", "--csv"),
)


def this_machine(word: str) -> str:
    """The name of the first GPU here. ``word`` is what was asked for: "local" or "cpu".

    Raises UnknownHardwareError with what to do: a CPU has no profile until it is measured.
    """
    if word == "cpu":
        raise UnknownHardwareError(
            "'cpu' names no machine: a prediction is for one CPU, and none is known by that word\n"
            "  `costmodel calibrate -o this-cpu.toml` measures this one; --hw this-cpu.toml then names it\n"
            "  `costmodel hw list` shows those that have a profile, such as epyc-7763 and xeon-6148"
        )
    for command in _ASKED:
        name = _first_name(command)
        if name:
            return name
    raise UnknownHardwareError(
        "no GPU of this machine is found: neither nvidia-smi nor rocm-smi names one\n"
        "  `costmodel calibrate -o this-cpu.toml` measures the CPU; `costmodel hw list` shows other machines"
    )


def _first_name(command: tuple[str, ...]) -> str:
    """The first name that ``command`` prints; "" where it is not there or names none."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)  # noqa: S603  # one of _ASKED
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    if done.returncode or not lines:
        return ""
    if command[0] == "nvidia-smi":
        return lines[0]
    heads, *cards = (line.split(",") for line in lines)  # rocm-smi: a heading, then a line for each card
    place = next((i for i, head in enumerate(heads) if head.strip().lower() == "card series"), None)
    return cards[0][place].strip() if cards and place is not None and place < len(cards[0]) else ""
