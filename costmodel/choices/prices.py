"""What machines cost by the hour, as the user brings it: a TOML file with a table ``per_hour`` by name or alias."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from costmodel.errors import InputError, UnknownHardwareError, librarian
from costmodel.hardware import load
from costmodel.hardware.read import parse_toml

__all__ = ["Prices", "read_prices"]

_EXAMPLE = 'currency = "USD"\n[per_hour]\na100 = 3.67\nt4 = 0.35'
_SECONDS_AN_HOUR = 3600.0
#: Samples that a cost is of.
_SAMPLES = 1e6


@dataclass(frozen=True, slots=True)
class Prices:
    """Price of an hour of each machine, by the name of its profile, in one ``currency``."""

    currency: str = ""
    per_hour: Mapping[str, float] = field(default_factory=dict)

    def per_million(self, machine: str, throughput_per_s: float) -> float | None:
        """What a million samples cost at this throughput; None where the machine has no price.

        >>> Prices("USD", {"t4": 3.6}).per_million("t4", 1000.0)     # 1000 s at 3.6 USD an hour
        1.0
        """
        price = self.per_hour.get(machine)
        return None if price is None else price / _SECONDS_AN_HOUR / throughput_per_s * _SAMPLES


def read_prices(path: str | os.PathLike[str]) -> Prices:
    """Prices of a file. Raises InputError for one that is none, for a machine that has no profile and for a price below
    0 or said twice."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise InputError(librarian(f"there is no file {path}", do=f"It is such as:\n{_EXAMPLE}"))
    try:
        data = parse_toml(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(librarian(f"{path} is no TOML: {error}", do=f"It is such as:\n{_EXAMPLE}")) from error
    table, unknown = data.get("per_hour"), sorted(set(data) - {"per_hour", "currency"})
    if not isinstance(table, dict) or not table or unknown:
        said = f"{path} has no table per_hour" if not unknown else f"{path} has {unknown[0]!r}, which prices have not"
        raise InputError(librarian(said, do=f"It is such as:\n{_EXAMPLE}"))
    found: dict[str, float] = {}
    for machine, price in table.items():
        if isinstance(price, bool) or not isinstance(price, (int, float)) or not 0 <= price < float("inf"):
            raise InputError(f"the price of {machine} in {path} is {price!r}, and should be a number for an hour")
        try:
            name = load(machine).name
        except UnknownHardwareError as error:
            raise InputError(f"{path}: {error}") from error
        if name in found:
            raise InputError(f"{path} has two prices of {name}")
        found[name] = float(price)
    return Prices(str(data.get("currency", "")), found)
