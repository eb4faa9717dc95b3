"""Write reports/accuracy.md and the pages behind it: predictions against every measured timing of a folder.

    python benchmarks/accuracy_report.py MEASURED [-o reports] [--limit N] [--jobs N]

``MEASURED`` holds CSV files in the formats that ``costmodel validate`` reads; files in another format are named.
``--limit`` samples each file (seed 0). The same rows and the same model give the same bytes.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from costmodel.errors import CostmodelError
from costmodel.report.accuracy_pages import FOLDER, accuracy_pages, kind_of_operator
from costmodel.report.figures import style, svg_text
from costmodel.report.output import put
from costmodel.traced import load_trace
from costmodel.validate import Judged, ModelRow, Validation, read_measured, validate

GREY = "#7d8590"
COLOURS = ("#4c8bf5", "#e8833a", "#2ea56b", "#c061cb", "#d6455d", "#b8961e")
POINTS_A_PANEL = 500


def main() -> int:
    arguments = _parser().parse_args()
    folder: Path = arguments.output
    refused: list[str] = []
    validations: dict[str, Validation] = {}
    for path in sorted(p for p in arguments.measured.iterdir() if p.name.endswith((".csv", ".csv.gz"))):
        if path.name.startswith("memory_"):  # what they leave unsaid (releases, optimizers) must be given with them
            refused.append(f"{path.name}: measured memory, not times; costmodel validate judges it, with --torch")
            continue
        try:
            result = _validate(path, arguments)
        except CostmodelError as error:
            refused.append(_why(path, error))
            continue
        validations[path.name.partition(".")[0]] = result
        print(f"{path.name}: {len(result.judged)} rows in {result.seconds:.0f} s", file=sys.stderr)
    write_pages(validations, refused, folder)
    return 0


def _why(path: Path, error: CostmodelError) -> str:
    """The file, what is wrong with it, and for a file without a usable row the reasons of its rows."""
    first, *rest = (line.strip() for line in str(error).replace(str(path), "the file").splitlines())
    if "its columns are" in first:
        columns = first.partition("its columns are")[2].strip().split(", ")
        return f"{path.name}: another format ({', '.join(columns[:7])}{', ...' if len(columns) > 7 else ''})"
    reasons = "; ".join(line for line in rest if " x " in line)
    return f"{path.name}: {first}" + (f" ({reasons})" if reasons else "")


def write_pages(validations: Mapping[str, Validation], refused: Sequence[str], folder: Path) -> None:
    """accuracy.md, the pages behind it and their figures, each whole or not at all."""
    figures = {}
    for stem, result in validations.items():
        figure = Path("figures") / f"accuracy_{stem}.svg"
        (folder / figure).parent.mkdir(parents=True, exist_ok=True)
        put(scatter(result.judged), folder / figure)
        figures[stem] = (figure.as_posix(), _caption(result))
    pages = accuracy_pages(validations, refused, figures, COMMAND)
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        put(text, folder / name)


def _caption(result: Validation) -> str:
    shown = sum(min(len(items), POINTS_A_PANEL) for items in _panels(result.judged).values())
    return f"{shown:,} points drawn of {len(result.judged):,}, evenly over the measured times. Dotted: a quarter off."


COMMAND = "python benchmarks/accuracy_report.py MEASURED"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("measured", type=Path, metavar="MEASURED", help="folder of measured timings")
    parser.add_argument("-o", "--output", type=Path, default=Path("reports"), metavar="FOLDER")
    parser.add_argument("--limit", type=int, metavar="N", help="judge a sample of N rows of each file")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1), metavar="N")
    return parser


def _validate(path: Path, arguments: argparse.Namespace) -> Validation:
    def progress(done: int, count: int) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{path.name}: {done}/{count} rows", end="", file=sys.stderr, flush=True)

    measured = read_measured([path])
    return validate(measured, trace=load_trace, limit=arguments.limit, jobs=arguments.jobs, progress=progress)


# -- figures -----------------------------------------------------------------------------------


def scatter(judged: Sequence[Judged]) -> str:
    """Predicted against measured time, a panel for each setting or operator, a colour for each machine, as SVG."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    panels = _panels(judged)
    devices = sorted({item.row.device for item in judged})
    colours = {device: COLOURS[i % len(COLOURS)] for i, device in enumerate(devices)}
    columns = min(3, len(panels))
    rows, width = -(-len(panels) // columns), max(3.4 * columns, 4.5)
    across = max(1, int(width / 1.6))  # machines in a line of the legend
    lines = -(-len(devices) // across)
    with rc_context(style()):
        figure = Figure(figsize=(width, 3.2 * rows + 0.25 * lines + 0.2), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis, (title, items) in zip(axes.flat, panels.items(), strict=False):
            _panel(axis, title, items, colours)
        for axis in list(axes.flat)[len(panels) :]:
            axis.set_visible(False)
        _legend(figure, colours, across)
        return svg_text(figure)


def _panels(judged: Iterable[Judged]) -> Mapping[str, list[Judged]]:
    panels: dict[str, list[Judged]] = {}
    for item in judged:
        panels.setdefault(_panel_of(item), []).append(item)
    return dict(sorted(panels.items()))


def _panel_of(item: Judged) -> str:
    row = item.row
    if isinstance(row, ModelRow):
        phase = "" if row.phase == "inference" else f", {row.phase}"
        return f"{row.dtype}, {row.layout}, {row.mode}{phase}"
    return f"{kind_of_operator(row.op)}, {row.dtype}"


def _panel(axis: Any, title: str, items: Sequence[Judged], colours: Mapping[str, str]) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    shown = _thinned(items, lambda item: (item.measured_s, item.predicted_s))
    for device, colour in colours.items():
        points = [
            (1e3 * i.measured_s, 1e3 * i.predicted_s) for i in shown if i.row.device == device and i.predicted_s > 0
        ]
        if points:
            axis.scatter(*zip(*points, strict=True), s=7, color=colour, alpha=0.55, linewidths=0)
    ends = [1e3 * min(i.measured_s for i in shown), 1e3 * max(i.measured_s for i in shown)]
    axis.plot(ends, ends, color=GREY, linewidth=0.8)
    for factor in (0.75, 1.25):
        axis.plot(ends, [factor * end for end in ends], color=GREY, linewidth=0.6, linestyle=":")
    axis.set(xscale="log", yscale="log", xlabel="measured (ms)", ylabel="predicted (ms)")
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        side.set_minor_formatter(NullFormatter())
    drawn = f"{len(shown):,} of {len(items):,} rows" if len(shown) < len(items) else f"{len(items):,} rows"
    axis.set_title(f"{title}: {drawn}", fontsize=9)


def _thinned(items: Sequence[Judged], key: Callable[[Judged], Any]) -> list[Judged]:
    """At most POINTS_A_PANEL of them, evenly over the measured times: what a figure can show and a page can load."""
    ordered = sorted(items, key=key)
    count = min(len(ordered), POINTS_A_PANEL)
    return [ordered[i * len(ordered) // count] for i in range(count)]


def _legend(figure: Any, colours: Mapping[str, str], across: int) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], marker="o", linestyle="", color=colour, label=device) for device, colour in colours.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=across, frameon=False)


if __name__ == "__main__":
    sys.exit(main())
