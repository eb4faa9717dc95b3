"""Figures of a step on a machine: its roofline, the way from FLOPs to time, its timeline, and what the batch does."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

from costmodel.errors import InputError, OutputError, librarian, near_matches
from costmodel.explain import Split, split
from costmodel.explain.kinds import KINDS, kind_of
from costmodel.report.figures import (
    COLOURS,
    GREY,
    INK,
    Dot,
    Picture,
    Roof,
    legend,
    palette,
    require_matplotlib,
    roofline_picture,
)
from costmodel.report.output import put_bytes
from costmodel.report.text import module_spans, shorten
from costmodel.units import format_bytes, format_seconds

__all__ = ["FIGURES", "check_figure", "draw_figure", "roofline_dots", "roofs_of", "write_figure"]

#: Batches that are drawn, as far as the step fits in memory.
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
#: What a figure's file may be, by its suffix.
_SUFFIXES = ("svg", "pdf", "png")
#: Share of the step above which a module is drawn by its parts [1].
_LARGEST_SHARE = 0.4
#: Share of the step below which a cause is drawn with the others [1].
_LEAST_SHARE = 0.005


def draw_figure(name: str, analyses: Sequence[Any]) -> Picture:
    """The figure ``name`` (one of :data:`FIGURES`) of an analysis; ``batches`` takes several, one a line.

    Raises InputError for another name, for several analyses where a figure is of one, and where a figure has nothing to
    show.
    """
    if name not in FIGURES:
        raise InputError(
            librarian(f"there is no figure {name!r}", there_is=list(FIGURES), near=near_matches(name, FIGURES))
        )
    if name != "batches" and len(analyses) != 1:
        raise InputError(
            f"the figure {name} is of one machine in one mode, and {len(analyses)} runs are asked for\n"
            "  --figure batches draws several beside each other"
        )
    for analysis in analyses:
        if not analysis.latency:
            raise InputError(f"{analysis.name} runs nothing on {analysis.hardware.name}: there is nothing to draw")
    return FIGURES[name](analyses)


def write_figure(name: str, analyses: Sequence[Any], path: str | os.PathLike[str]) -> None:
    """Draws a figure into a file: SVG, PDF or PNG by its suffix.

    Raises OutputError for another suffix, or where matplotlib is missing or the file cannot be written.
    """
    suffix = check_figure(name, path)
    put_bytes(draw_figure(name, analyses).encoded(suffix), path)


def check_figure(name: str, path: str | os.PathLike[str] | None) -> str:
    """The format that the suffix of ``path`` asks for. Raises what :func:`write_figure` raises for a name that is none,
    to be known before a long analysis and not after."""
    suffix = "" if path is None else os.path.splitext(path)[1].removeprefix(".").lower()
    if suffix not in _SUFFIXES:
        said = "and none is named" if path is None else f"not in {path}"
        known = ", ".join(f".{word}" for word in _SUFFIXES)
        raise OutputError(f"a figure goes to a file that ends in {known}, {said}\n  --figure {name} -o {name}.svg")
    require_matplotlib()
    return suffix


# -- roofline ----------------------------------------------------------------------------------


def roofline_dots(analysis: Any) -> list[Dot]:
    """One dot for all launches of a kernel by operators of a kind: FLOP a byte of device memory, and FLOP/s reached."""
    kinds = kind_of(analysis)
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for launch, row in zip(analysis.plan.launches, analysis.kernels, strict=True):
        if row.intensity and row.busy_s:
            groups.setdefault((kinds[row.name], launch.kernel), []).append(row)
    dots = []
    for (kind, _), rows in groups.items():
        flops, busy = sum(row.flops for row in rows), math.fsum(row.busy_s for row in rows)
        moved = sum(row.bytes if row.dram_bytes is None else row.dram_bytes for row in rows)
        dots.append(Dot(flops / moved, flops / busy, busy, kind, rows[0].name))
    return dots


def roofs_of(analysis: Any, found: Split) -> list[Roof]:
    """The peak that most FLOPs run at, and that of the fp32 lanes where it is another."""
    roofs = [Roof(f"{found.peak.dtype} on {found.peak.engine} units", found.peak.flop_per_s)]
    lanes = analysis.hardware.find_peak("vector", "fp32")
    if lanes is not None and lanes != found.peak:
        roofs.append(Roof("fp32 lanes", lanes.flop_per_s))
    return roofs


def _roofline(analyses: Sequence[Any]) -> Picture:
    (analysis,) = analyses
    dots = roofline_dots(analysis)
    if not dots:
        raise InputError(f"{analysis.name} computes nothing: no kernel of it has a place on a roofline")
    shown = sum(dot.seconds for dot in dots) / (analysis.timeline.busy_s or 1.0)
    hidden = "" if shown > 0.999 else f"; {1 - shown:.1%} of the time moves bytes alone and is not shown"
    title = f"{_about(analysis)}\na dot for each kernel, its area is its time{hidden}"
    return roofline_picture(dots, roofs_of(analysis, split(analysis)), analysis.hardware.dram_bytes_per_s, title, KINDS)


# -- causes ------------------------------------------------------------------------------------


def _causes(analyses: Sequence[Any]) -> Picture:
    """A waterfall from what FLOPs alone say to the predicted latency."""
    (analysis,) = analyses
    found = split(analysis)
    steps = [("FLOPs alone", found.flops_alone_s)]
    steps += [(cause.label, cause.seconds) for cause in found.causes if abs(cause.share) >= _LEAST_SHARE]
    rest = found.latency_s - math.fsum(seconds for _, seconds in steps)
    if abs(rest) > 1e-3 * _LEAST_SHARE * found.latency_s:
        steps.append(("all else", rest))
    unit, scale = _time_unit(found.latency_s)
    digits = max(0, 2 - math.floor(math.log10(found.latency_s / scale))) if found.latency_s else 0

    def draw(axes: Any) -> None:
        now = 0.0
        for place, (_, seconds) in enumerate(steps):
            colour = COLOURS[0] if not place else COLOURS[2] if seconds < 0 else COLOURS[1]
            axes.barh(place, seconds / scale, left=now / scale, color=colour, height=0.62)
            right = max(now, now + seconds) / scale
            sign = "" if not place else "+" if seconds > 0 else "−"
            axes.text(right, place, f"  {sign}{abs(seconds) / scale:.{digits}f}", va="center", fontsize=8.5)
            now += seconds
            axes.plot([now / scale] * 2, [place - 0.31, place + 1.31], color=GREY, linewidth=0.6)
        axes.barh(len(steps), now / scale, color=INK, height=0.62)
        axes.text(now / scale, len(steps), f"  {now / scale:.{digits}f}", va="center", fontsize=8.5)
        axes.set_yticks(range(len(steps) + 1), [*(label for label, _ in steps), "predicted"])
        axes.invert_yaxis()
        axes.margins(x=0.1)
        axes.set_xlim(left=0)
        peak = f"{found.peak.dtype} {found.peak.engine} units"
        axes.set(xlabel=unit)
        title = f"{_about(analysis)}\nfrom FLOPs at the peak of {peak} to the predicted time"
        axes.figure.suptitle(title, fontsize=10, x=0.01, ha="left")

    return Picture.of_axes(8.0, 1.4 + 0.3 * (len(steps) + 1), draw)


# -- timeline ----------------------------------------------------------------------------------


def _timeline(analyses: Sequence[Any]) -> Picture:
    """Modules, what the host issues, and the kernels of the device, over the time of the step."""
    (analysis,) = analyses
    kinds, rows, ahead = kind_of(analysis), analysis.kernels, analysis.hardware.family.issues_ahead
    unit, scale = _time_unit(analysis.latency)
    colours = palette(KINDS)
    shown = {kinds[row.name] for row in rows}
    modules = _modules(analysis)

    def draw(axes: Any) -> None:
        _lane(axes, 0, [(start, end, COLOURS[8]) for _, start, end in modules], scale, edges=True)
        for path, start, end in modules:
            letters = int(110 * (end - start) / analysis.latency)
            if letters >= 2:
                middle = (start + end) / 2 / scale
                axes.text(middle, 0, shorten(path, letters), ha="center", va="center", fontsize=7, color="white")
        _lane(axes, 1, [(row.start_s, row.end_s, colours[kinds[row.name]]) for row in rows], scale)
        lanes = ["modules", "device" if ahead else "CPU"]
        if ahead:
            issued = [0.0, *(row.issued_s for row in rows)]
            calls = [(a, b, colours[kinds[row.name]]) for row, a, b in zip(rows, issued, issued[1:], strict=False)]
            _lane(axes, 2, calls, scale)
            lanes.append("host issues")
        axes.set_yticks(range(len(lanes)), lanes)
        axes.set_ylim(len(lanes) - 0.5, -0.5)
        axes.set_xlim(0, analysis.latency / scale)
        waits = f"; the device waits for {format_seconds(analysis.timeline.waited_s)}" if ahead else ""
        axes.set(xlabel=unit, title=f"{_about(analysis)}: {format_seconds(analysis.latency)}{waits}")
        axes.tick_params(axis="y", length=0)
        legend(axes, {kind: colour for kind, colour in colours.items() if kind in shown})

    return Picture.of_axes(10.0, 2.7, draw)


def _modules(analysis: Any) -> list[tuple[str, float, float]]:
    """Spans of modules, at a depth at which none of them takes most of the step unless it has no parts."""
    spans = list(module_spans([(row.module, row.start_s, row.end_s) for row in analysis.kernels]))
    shown = [span for span in spans if "." not in span[0]]
    while large := [span for span in shown if span[2] - span[1] > _LARGEST_SHARE * analysis.latency]:
        path, start, end = large[0]
        parts = [
            span for span in spans
            if span[0].rpartition(".")[0] == path and start <= span[1] <= span[2] <= end
        ]  # fmt: skip
        if not parts:
            break
        place = shown.index(large[0])
        shown[place : place + 1] = parts
    return shown


def _lane(
    axes: Any, place: int, blocks: Sequence[tuple[float, float, str]], scale: float, *, edges: bool = False
) -> None:
    """Blocks (start, end, colour) side by side."""
    axes.broken_barh(
        [(start / scale, max(end - start, 0.0) / scale) for start, end, _ in blocks],
        (place - 0.36, 0.72),
        facecolors=[colour for _, _, colour in blocks],
        edgecolors="white" if edges else "none",
        linewidth=0.5,
    )


# -- memory ------------------------------------------------------------------------------------


def _memory(analyses: Sequence[Any]) -> Picture:
    """What is allocated over the time of the step, what lies there throughout in another colour."""
    (analysis,) = analyses
    unit, scale = _time_unit(analysis.latency)
    course, rows = analysis.memory.course, analysis.kernels
    most = max(course)
    prefix, size = ("GB", 1e9) if most >= 1e9 else ("MB", 1e6)
    at = [*(row.start_s / scale for row in rows), analysis.latency / scale]
    nbytes = [value / size for value in (*course, course[-1])]
    throughout = analysis.memory.certain_bytes / size
    peak = course.index(most)

    def draw(axes: Any) -> None:
        axes.fill_between(at, nbytes, step="post", color=COLOURS[0], linewidth=0)
        axes.fill_between(at, [throughout] * len(at), step="post", color=COLOURS[8], linewidth=0)
        axes.plot(at[peak], nbytes[peak], marker="o", markersize=4, color=INK)
        axes.annotate(f" {rows[peak].name}", (at[peak], nbytes[peak]), fontsize=8, va="bottom")
        axes.set(xlim=(0, analysis.latency / scale), ylim=(0, 1.15 * most / size), xlabel=unit, ylabel=prefix)
        axes.set(title=f"{_about(analysis)}\n{format_bytes(most)} allocated at most")
        legend(axes, {"there throughout": COLOURS[8], "made by the step": COLOURS[0]})

    return Picture.of_axes(8.0, 3.2, draw)


# -- batches -----------------------------------------------------------------------------------


def _batches(analyses: Sequence[Any]) -> Picture:
    """Latency and throughput over the batch, with their intervals, as far as the step fits in memory."""
    first = analyses[0]
    series = {_run_label(analysis, analyses): _over_batches(analysis) for analysis in analyses}
    colours = palette(series)
    ends = [label for label, points in series.items() if points and points[-1][0] < _BATCHES[-1]]

    def draw(figure: Any) -> None:
        latency, rate = figure.subplots(1, 2)
        for label, points in series.items():
            batches = [batch for batch, _ in points]
            low, middle, high = (
                [pick(totals) for _, totals in points]
                for pick in (lambda t: t.latency_low_s, lambda t: t.latency_s, lambda t: t.latency_high_s)
            )
            style = {"color": colours[label], "marker": "o", "markersize": 3.5}
            latency.plot(batches, [1e3 * s for s in middle], **style)
            latency.fill_between(batches, [1e3 * s for s in low], [1e3 * s for s in high], color=colours[label],
                                 alpha=0.15, linewidth=0)  # fmt: skip
            rate.plot(batches, [b / s for b, s in zip(batches, middle, strict=True)], **style)
            rate.fill_between(batches, [b / s for b, s in zip(batches, high, strict=True)],
                              [b / s for b, s in zip(batches, low, strict=True)], color=colours[label], alpha=0.15,
                              linewidth=0)  # fmt: skip
        for axes, name in ((latency, "latency (ms)"), (rate, "samples/s")):
            axes.set(xscale="log", yscale="log", xlabel="batch", ylabel=name)
            ticks = sorted({batch for points in series.values() for batch, _ in points})
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.xaxis.minorticks_off()
            axes.yaxis.set_major_formatter(_plain_number)
            axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)
        about = _about(first, with_batch=False, with_machine=len(analyses) == 1)
        title = f"{about}; bands are intervals{', lines end where memory does' if ends else ''}"
        figure.suptitle(title, fontsize=10, x=0.01, ha="left")
        if len(series) > 1:
            legend(latency, colours)

    return Picture(9.0, 3.6, draw)


def _over_batches(analysis: Any) -> list[tuple[int, Any]]:
    """(batch, totals) of those that fit in the machine's memory; the smallest in any case."""
    capacity = analysis.hardware.dram.capacity_bytes or math.inf
    found: list[tuple[int, Any]] = []
    for batch in _BATCHES:
        totals = analysis.at(batch=batch).totals
        if found and totals.peak_memory_bytes > capacity:
            break
        found.append((batch, totals))
    return found


def _run_label(analysis: Any, all_of_them: Sequence[Any]) -> str:
    modes = {a.execution.engine for a in all_of_them}
    machine: str = analysis.hardware.title
    return machine + (f", {analysis.execution.engine}" if len(modes) > 1 else "")


def _plain_number(value: float, _: Any = None) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:g}"


# -- words -------------------------------------------------------------------------------------


def _about(analysis: Any, *, with_batch: bool = True, with_machine: bool = True) -> str:
    """What is drawn: model, machine, and how it runs."""
    execution = analysis.execution
    parts = [f"batch {execution.batch}"] if with_batch else []
    parts += [str(execution.precision), execution.engine]
    parts += [phase] if (phase := execution.words["phase"]) != "inference" else []
    machine = f" on {analysis.hardware.title}" if with_machine else ""
    return f"{shorten(analysis.name, 40)}{machine}, {', '.join(parts)}"


def _time_unit(seconds: float) -> tuple[str, float]:
    """The unit in which a step is a number of some digits, and its seconds."""
    return ("ms", 1e-3) if seconds >= 1e-3 else ("µs", 1e-6)


FIGURES: dict[str, Callable[[Sequence[Any]], Picture]] = {
    "roofline": _roofline,
    "causes": _causes,
    "timeline": _timeline,
    "memory": _memory,
    "batches": _batches,
}
