"""Figures as SVG text: rooflines, bars and lines, the same bytes for the same numbers.

Every figure has an opaque panel of its own, so that it reads alike on a light and on a dark page, and its letters are
outlines, so that no font of the reader's can clip or move them. matplotlib draws; it is imported when a figure is
asked for.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from costmodel.errors import OutputError, librarian

__all__ = [
    "COLOURS",
    "GREY",
    "INK",
    "PANEL",
    "Dot",
    "Picture",
    "Roof",
    "bars",
    "legend",
    "lines",
    "lines_picture",
    "pairs",
    "palette",
    "require_matplotlib",
    "roofline",
    "roofline_picture",
    "scatter_picture",
    "style",
    "svg_text",
]

_T = TypeVar("_T")

#: Of the panel, of letters and axes, and of what should step back.
PANEL, INK, GREY = "#f6f7f9", "#24292f", "#7d8590"
#: Colours that keep apart on the panel, also for most readers who see few of them.
COLOURS = ("#3b76d1", "#e07b2c", "#2a9461", "#a450b5", "#cc4257", "#a3861a", "#4aa3b5", "#8a6d5b", "#6c6f7a", "#c9a9d9",
           "#d77fb0")  # fmt: skip

#: Letters of a legend that fit on one line below the axes.
_LETTERS_A_LINE = 112


@dataclass(frozen=True, slots=True)
class Dot:
    """One kernel or layer on a roofline: FLOP/B, FLOP/s, seconds (its area), and the kind that gives its colour."""

    intensity: float
    flop_per_s: float
    seconds: float
    kind: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class Roof:
    """A peak in FLOP/s and what it is called."""

    label: str
    flop_per_s: float


def require_matplotlib() -> None:
    """Raise OutputError saying what to install where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        do = "pip install matplotlib"
        raise OutputError(librarian("figures need matplotlib, which is not installed", do=do)) from error


def style() -> dict[str, Any]:
    """matplotlib settings of every figure."""
    names = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "axes.titlecolor")
    return {
        **dict.fromkeys(names, INK),
        "figure.facecolor": PANEL,
        "axes.facecolor": PANEL,
        "savefig.facecolor": PANEL,
        "svg.hashsalt": "costmodel",  # identifiers that do not change from run to run
        "svg.fonttype": "path",
        "font.family": "DejaVu Sans",  # ships with matplotlib
        "font.size": 9,
        "text.parse_math": False,  # a dollar sign in a name is one
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
    }


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure that is drawn when a format is asked for: ``draw(figure)`` fills it; sizes in inches.

    Raises OutputError where matplotlib is missing.
    """

    width: float
    height: float
    draw: Callable[[Any], None]

    @classmethod
    def of_axes(cls, width: float, height: float, draw: Callable[[Any], None]) -> Picture:
        """One pair of axes that ``draw(axes)`` fills."""
        return cls(width, height, lambda figure: draw(figure.add_subplot()))

    def svg(self) -> str:
        """As SVG text."""
        return self._drawn(svg_text)

    def encoded(self, format: str) -> bytes:
        """As the bytes of a file: ``svg``, ``pdf`` or ``png``, at 200 dots an inch."""
        if format == "svg":
            return self.svg().encode()
        buffer = io.BytesIO()
        dated: dict[str, Any] = {"CreationDate": None} if format == "pdf" else {"Software": None}
        self._drawn(lambda figure: figure.savefig(buffer, format=format, dpi=200, metadata=dated))
        return buffer.getvalue()

    def _drawn(self, use: Callable[[Any], _T]) -> _T:
        require_matplotlib()
        from matplotlib import rc_context
        from matplotlib.figure import Figure

        with rc_context(style()):
            figure = Figure(figsize=(self.width, self.height), layout="constrained")
            self.draw(figure)
            return use(figure)


def _drawn(width: float, height: float, draw: Callable[[Any], None]) -> str:
    """The SVG of one pair of axes that ``draw(axes)`` fills; sizes in inches."""
    return Picture.of_axes(width, height, draw).svg()


def svg_text(figure: Any) -> str:
    """The figure as SVG text: the same bytes for the same figure. To be called under :func:`style`."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return re.sub(r"[ \t]+$", "", buffer.getvalue(), flags=re.MULTILINE)


def palette(kinds: Iterable[str]) -> dict[str, str]:
    """A colour for each kind, in the order of :data:`COLOURS`."""
    return {kind: COLOURS[i % len(COLOURS)] for i, kind in enumerate(dict.fromkeys(kinds))}


# -- rooflines ---------------------------------------------------------------------------------


def roofline(
    dots: Sequence[Dot], roofs: Sequence[Roof], bytes_per_s: float, title: str, kinds: Sequence[str] = ()
) -> str:
    """The SVG of :func:`roofline_picture`."""
    return roofline_picture(dots, roofs, bytes_per_s, title, kinds).svg()


def roofline_picture(
    dots: Sequence[Dot], roofs: Sequence[Roof], bytes_per_s: float, title: str, kinds: Sequence[str] = ()
) -> Picture:
    """Achieved FLOP/s over arithmetic intensity, both logarithmic, under a machine's roofs.

    The area of a dot is its share of the time. ``kinds`` orders the legend, and gives each kind the colour that it has
    in every figure of the same ``kinds``, shown there or not.
    """
    shown = {dot.kind for dot in dots}
    colours = {kind: c for kind, c in palette([*kinds, *(dot.kind for dot in dots)]).items() if kind in shown}
    whole = sum(dot.seconds for dot in dots) or 1.0

    def draw(axes: Any) -> None:
        low, high = _decades([dot.intensity for dot in dots] + [roofs[0].flop_per_s / bytes_per_s * 3])
        for roof in roofs:
            _draw_roof(axes, roof, bytes_per_s, low, high)
        for kind, colour in colours.items():
            here = [dot for dot in dots if dot.kind == kind]
            axes.scatter(
                [dot.intensity for dot in here], [dot.flop_per_s for dot in here],
                s=[12 + 1500 * dot.seconds / whole for dot in here], color=colour, alpha=0.6, linewidths=0.4,
                edgecolors=PANEL, zorder=3, label=kind,
            )  # fmt: skip
        axes.set(xscale="log", yscale="log", xlim=(low, high), title=title)
        axes.set(xlabel="arithmetic intensity (FLOP/B)", ylabel="achieved (FLOP/s)")
        axes.set_ylim(min(dot.flop_per_s for dot in dots) / 3, 3 * max(roof.flop_per_s for roof in roofs))
        axes.yaxis.set_major_formatter(_si_formatter())
        axes.xaxis.set_major_formatter(_plain_formatter())
        _legend(axes, colours)

    return Picture.of_axes(8.0, 4.6, draw)


def _draw_roof(axes: Any, roof: Roof, bytes_per_s: float, low: float, high: float) -> None:
    """Bandwidth up to the ridge point, the peak from there on."""
    ridge = roof.flop_per_s / bytes_per_s
    axes.plot([low, ridge, high], [low * bytes_per_s, roof.flop_per_s, roof.flop_per_s], color=INK, linewidth=1.1)
    axes.text(high, 1.15 * roof.flop_per_s, f"{roof.label}; ridge at {ridge:.0f} FLOP/B ", ha="right", fontsize=8)


def _decades(values: Sequence[float]) -> tuple[float, float]:
    """Limits that hold all values with some air."""
    known = [value for value in values if value > 0]
    return min(known) / 2, 2 * max(known)


def _si_formatter() -> Any:
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep=" ")


def _log_ticks(axis: Any) -> None:
    """Ticks at 1, 2 and 5 of each decade, with SI prefixes."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axis.set_major_formatter(_si_formatter())
    axis.set_minor_formatter(NullFormatter())


def _plain_formatter() -> Any:
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: f"{value:g}")


def _legend(axes: Any, colours: Mapping[str, str]) -> None:
    """Dots of one size below the axes."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], marker="o", linestyle="", color=c, label=kind) for kind, c in colours.items()]
    axes.figure.legend(handles=handles, loc="outside lower center", ncols=_columns(colours), frameon=False)


# -- bars and lines ----------------------------------------------------------------------------


def bars(
    rows: Mapping[str, Mapping[str, float]], unit: str, title: str, *, decimals: int = 1, as_shares: bool = False
) -> str:
    """Horizontal bars, one a row from the top, each stacked of named parts; negative parts run to the left of zero.

    The sum stands at the end of each bar; ``as_shares`` draws every bar in percent of its own.
    """
    parts = list(dict.fromkeys(part for row in rows.values() for part in row))
    colours = palette(parts)

    def draw(axes: Any) -> None:
        for position, row in enumerate(rows.values()):
            ends, whole = {1: 0.0, -1: 0.0}, sum(row.values())
            for part in parts:
                value = row.get(part, 0.0) * (100 / whole if as_shares else 1.0)
                side = 1 if value >= 0 else -1
                axes.barh(position, value, left=ends[side], color=colours[part], height=0.62)
                ends[side] += value
            axes.text(ends[1], position, f"  {whole:,.{decimals}f} {unit}", va="center", fontsize=8.5)
        axes.set_yticks(range(len(rows)), list(rows))
        axes.invert_yaxis()
        axes.margins(x=0.16)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set(xlabel="% of the time" if as_shares else unit, title=title)
        if len(parts) > 1:
            legend(axes, colours)

    return _drawn(8.0, 1.35 + 0.34 * len(rows) + 0.22 * -(-len(parts) // _columns(parts)), draw)


def legend(axes: Any, colours: Mapping[str, str]) -> None:
    """Patches of colour below the axes, each with its name."""
    from matplotlib.patches import Patch

    handles = [Patch(color=colour, label=part) for part, colour in colours.items()]
    axes.figure.legend(handles=handles, loc="outside lower center", ncols=_columns(colours), frameon=False)


def _columns(labels: Iterable[str]) -> int:
    """How many columns of a legend fit below the axes: a label is as wide as its letters and a sign before them."""
    lengths = [len(label) for label in labels]
    return max(1, min(len(lengths), _LETTERS_A_LINE // (max(lengths) + 8)))


def pairs(
    rows: Mapping[str, Sequence[float]], series: Sequence[str], axis: str, title: str, *, form: str = "{:.2f}"
) -> str:
    """For each row one bar for each of ``series``, side by side: a published and a predicted figure, say."""

    def draw(axes: Any) -> None:
        height = 0.8 / len(series)
        for i, name in enumerate(series):
            places = [position + (i - (len(series) - 1) / 2) * height for position in range(len(rows))]
            values = [values[i] for values in rows.values()]
            axes.barh(places, values, height=0.92 * height, color=COLOURS[i], label=name)
            for place, value in zip(places, values, strict=True):
                axes.text(value, place, "  " + form.format(value), va="center", fontsize=8)
        axes.set_yticks(range(len(rows)), list(rows))
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set(xlabel=axis, title=title)
        legend(axes, dict(zip(series, COLOURS, strict=False)))

    below = 0.22 * -(-len(series) // _columns(series))
    return _drawn(8.0, 1.0 + below + 0.22 * len(series) * len(rows) + 0.12 * len(rows), draw)


def lines(
    series: Mapping[str, Sequence[tuple[float, float]]], x: str, y: str, title: str, *, ticks: Sequence[float] = ()
) -> str:
    """:func:`lines_picture` as SVG text."""
    return lines_picture(series, x, y, title, ticks=ticks, few=True).svg()


def lines_picture(
    series: Mapping[str, Sequence[tuple[float, float]]],
    x: str,
    y: str,
    title: str,
    *,
    ticks: Sequence[float] = (),
    few: bool = False,
) -> Picture:
    """Lines over a logarithmic axis (batch sizes), each named below. ``few``: powers of ten alone on the other axis."""
    colours = palette(series)

    def draw(axes: Any) -> None:
        for name, points in series.items():
            axes.plot(*zip(*points, strict=True), color=colours[name], marker="o", markersize=3.5)
        axes.set(xscale="log", yscale="log", xlabel=x, ylabel=y, title=title)
        at = ticks or sorted({point[0] for points in series.values() for point in points})
        axes.set_xticks(at, [f"{tick:g}" for tick in at])
        axes.xaxis.minorticks_off()
        if few:
            axes.yaxis.set_major_formatter(_si_formatter())
        else:
            _log_ticks(axes.yaxis)
        axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)
        _legend(axes, colours)

    return Picture.of_axes(8.0, 4.2, draw)


#: Dots that may carry a label before labels cover one another.
_MOST_LABELS = 24


def scatter_picture(
    groups: Mapping[str, Sequence[tuple[float, float, str]]],
    fronts: Sequence[Sequence[tuple[float, float]]],
    x: str,
    y: str,
    title: str,
) -> Picture:
    """Dots (x, y, label) over two logarithmic axes, a colour a group; each of ``fronts`` is a line of steps through
    the dots that no other beats, and what is not on one steps back. Few dots carry their labels."""
    colours = palette(groups)
    on_front = {point for front in fronts for point in front}
    labelled = on_front or {dot[:2] for dots in groups.values() for dot in dots}

    def draw(axes: Any) -> None:
        for name, dots in groups.items():
            for dot in dots:
                strong = not on_front or dot[:2] in on_front
                size, opacity, order = (4.5, 0.95, 3) if strong else (3.0, 0.3, 2)
                axes.plot(
                    *dot[:2],
                    marker="o",
                    markersize=size,
                    linestyle="",
                    color=colours[name],
                    alpha=opacity,
                    zorder=order,
                )
        for front in fronts:
            axes.step(*zip(*sorted(front), strict=True), where="post", color=INK, linewidth=0.8, alpha=0.6)
        if len(labelled) <= _MOST_LABELS:
            for px, py, label in (dot for dots in groups.values() for dot in dots if dot[:2] in labelled):
                note = axes.annotate(label, (px, py), xytext=(4, 3), textcoords="offset points", fontsize=7)
                note.set_in_layout(False)
        axes.set(xscale="log", yscale="log", xlabel=x, ylabel=y, title=title)
        for axis in (axes.xaxis, axes.yaxis):
            _log_ticks(axis)
        axes.margins(x=0.12, y=0.08)
        axes.grid(color=GREY, alpha=0.25, linewidth=0.6)
        if len(groups) > 1:
            _legend(axes, colours)

    return Picture.of_axes(8.0, 4.8, draw)
