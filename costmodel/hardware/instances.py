"""Instances of clouds, by the names that their makers give them: which card they hold, and how many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from costmodel.hardware.profile import HardwareProfile
from costmodel.hardware.read import parse_toml

__all__ = ["Instance", "instances"]


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance: its name, the machine that one of its cards is, how many there are, and where that is said."""

    name: str
    machine: str
    cards: int
    source: str

    def described(self, profile: HardwareProfile) -> HardwareProfile:
        """The profile of one card, whose title says of which instance, and of how many cards, it is one."""
        of = f"the card of {self.name}" if self.cards == 1 else f"one of the {self.cards} cards of {self.name}"
        return replace(profile, title=f"{profile.title}, {of}")


def _file() -> Path:
    package = Path(__file__).resolve().parent.parent
    installed = package / "hw_profiles"
    folder = installed if installed.is_dir() else package.parent / "hw_profiles"
    return folder / "clouds" / "instances.toml"


@lru_cache(maxsize=1)
def instances() -> Mapping[str, Instance]:
    """All instances by name, in lower case."""
    found: dict[str, Instance] = {}
    for table in parse_toml(_file().read_text(encoding="utf-8")).values():
        for name, (machine, cards) in table["instances"].items():
            found[name.lower()] = Instance(name, machine, cards, table["source"])
    return found
