"""Values of an axis of a sweep, as a command line has them: ``1,2,4..256``, ``160,192..320``, ``224x320``."""

from __future__ import annotations

from costmodel.errors import InputError, librarian

__all__ = ["image_sizes", "numbers"]

#: More values than this on one axis are a slip of the keyboard.
_MOST = 10_000
_EXAMPLE = "Write numbers and ranges, such as 1,2,4..256 (doubling) or 160,192..320 (in steps of 32)."


def numbers(text: str, what: str = "batch") -> tuple[int, ...]:
    """Whole numbers of at least 1, each once and in the order written. ``a..b`` doubles from a to b; after another
    number it goes on in the step between the two, and doubles where that is a doubling. The end is always there.

    Raises InputError for anything else.

    >>> numbers("1,2,4..32"), numbers("160,192..256"), numbers("1..6")
    ((1, 2, 4, 8, 16, 32), (160, 192, 224, 256), (1, 2, 4, 6))
    """
    found: list[int] = []
    for part in text.split(","):
        first, dots, last = part.strip().partition("..")
        low = _number(first, text, what)
        before = found[-1] if found else None
        found.append(low)
        if dots:
            found += _range(before, low, _number(last, text, what), text, what)
    return tuple(dict.fromkeys(found))


def _number(text: str, whole: str, what: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise InputError(librarian(f"{what} {whole!r} is no list of whole numbers of at least 1", do=_EXAMPLE))
    return value


def _range(before: int | None, low: int, high: int, text: str, what: str) -> list[int]:
    """What follows ``low`` up to ``high``."""
    if high < low:
        raise InputError(librarian(f"{what} {text!r} runs from {low} down to {high}", do=_EXAMPLE))
    doubling = before is None or low == 2 * before or low <= before
    step = 0 if before is None else low - before
    found, value = [], low
    while (value := 2 * value if doubling else value + step) < high:
        found.append(value)
        if len(found) > _MOST:
            raise InputError(f"{what} {text!r} has more than {_MOST} values")
    return [*found, high]


def image_sizes(text: str) -> tuple[tuple[int, int], ...]:
    """Heights and widths [pixels]: one number is both.

    >>> image_sizes("160,224..288,224x320")
    ((160, 160), (224, 224), (288, 288), (224, 320))
    """
    found: list[tuple[int, int]] = []
    plain: list[str] = []

    def put_plain() -> None:
        if plain:
            found.extend((size, size) for size in numbers(",".join(plain), "image size"))
            plain.clear()

    for part in text.split(","):
        if "x" in part:
            put_plain()
            height, _, width = part.partition("x")
            found.append((_number(height, text, "image size"), _number(width, text, "image size")))
        else:
            plain.append(part)
    put_plain()
    return tuple(dict.fromkeys(found))
