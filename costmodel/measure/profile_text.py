"""Hardware profiles as TOML text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["microseconds", "toml_text", "toml_value"]


def toml_text(tables: Mapping[str, Mapping[str, Any]], *, source: str, heading: str) -> str:
    r"""Tables as TOML, ``""`` being the top; each but it and the kinds of a calibration is given ``source``.

    >>> print(toml_text({"": {"name": "m"}, "units": {"count": 2}}, source="here", heading="mine"))
    # mine
    name = "m"
    <BLANKLINE>
    [units]
    count = 2
    source = "here"
    <BLANKLINE>
    """
    lines = [f"# {heading}"]
    for name, values in tables.items():
        if name:
            lines.append(f"[{name}]")
        own = dict(values) if not name or name.startswith("calibration.") else {**values, "source": source}
        lines += [f"{key} = {toml_value(value)}" for key, value in own.items()]
        lines.append("")
    return "\n".join(lines)


def toml_value(value: Any) -> str:
    r"""A text, number, flag or list of them as TOML.

    >>> toml_value('a "b"'), toml_value(True), toml_value([1, 2.5, "x"])
    ('"a \\"b\\""', 'true', '[1, 2.5, "x"]')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if c.isprintable() else " " for c in escaped) + '"'
    return str(value)


def microseconds(seconds: float) -> str:
    """Microseconds with four digits, never in exponents.

    >>> microseconds(1.23456e-06), microseconds(0.0), microseconds(0.0123)
    ('1.235 µs', '0 µs', '12300 µs')
    """
    return f"{float(f'{seconds * 1e6:.4g}'):.10g} µs"
