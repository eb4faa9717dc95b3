"""Write reports/accuracy.md: predictions against every measured timing of a folder, with figures.

    python benchmarks/accuracy_report.py MEASURED [-o reports] [--limit N] [--jobs N]

``MEASURED`` holds CSV files in the formats that ``costmodel validate`` reads; files in another format are named.
``--limit`` samples each file (seed 0). The same rows and the same model give the same bytes.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from costmodel.api import load_trace
from costmodel.errors import CostmodelError
from costmodel.report import Document
from costmodel.report.accuracy import CONVENTIONS, accuracy_document
from costmodel.report.as_markdown import render_markdown
from costmodel.report.columns import text_column
from costmodel.report.document import Block, Figure, Notes, Paragraph, Table
from costmodel.report.output import put
from costmodel.validate import NOT_MODELLED, Judged, ModelRow, Validation, read_measured, validate

#: Grey and colours that keep their contrast on GitHub's light and dark pages alike.
GREY = "#7d8590"
COLOURS = ("#4c8bf5", "#e8833a", "#2ea56b", "#c061cb", "#d6455d", "#b8961e")
POINTS_A_PANEL = 500
VECTOR_OPS = "element-wise"


def main() -> int:
    arguments = _parser().parse_args()
    folder: Path = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    pages = [Document("Accuracy: predicted against measured", (Paragraph(INTRODUCTION),))]
    refused: list[str] = []
    for path in sorted(p for p in arguments.measured.iterdir() if p.name.endswith((".csv", ".csv.gz"))):
        try:
            result = _validate(path, arguments)
        except CostmodelError as error:
            refused.append(f"{path.name}: {str(error).splitlines()[0].replace(str(path), 'the file')}")
            continue
        name = path.name.partition(".")[0]
        figure = Path("figures") / f"accuracy_{name}.svg"
        scatter(result.judged, folder / figure)
        pages.append(Document(path.name, tuple(_section(name, result, figure))))
        print(f"{path.name}: {len(result.judged)} rows in {result.seconds:.0f} s", file=sys.stderr)
    pages += _closing(refused)
    put(
        "\n".join([render_markdown(pages[0]), *(_demoted(render_markdown(page)) for page in pages[1:])]),
        folder / "accuracy.md",
    )
    return 0


INTRODUCTION = (
    "Every row of public measurements that costmodel can judge, predicted from the model's source and a machine's "
    "profile alone: nothing was run. Written by `python benchmarks/accuracy_report.py MEASURED`; the baselines are "
    "scored on the same rows in the same run. fitted_constants.md holds every fitted constant and "
    "the errors on families and machines that it was not fitted to."
)


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


def _demoted(text: str) -> str:
    """Every heading one level down, so that pages become the chapters of one."""
    return re.sub(r"^#", "##", text, flags=re.MULTILINE)


def _section(name: str, result: Validation, figure: Path) -> Iterable[Block]:
    """The blocks of one measured file; the conventions stand once, at the end."""
    first, *rest = (block for block in accuracy_document(result, worst=20).blocks if not isinstance(block, Notes))
    yield first
    yield Figure(figure.as_posix(), f"{name}: predicted against measured time", "Dotted: a quarter off.")
    yield from rest


def _closing(refused: Sequence[str]) -> Iterable[Document]:
    columns = (text_column("what", "what"), text_column("meaning", "what it means for a prediction"))
    rows = tuple({"what": what, "meaning": meaning} for what, meaning in NOT_MODELLED)
    yield Document("Not modelled yet", (Table(columns=columns, rows=rows),))
    if refused:
        yield Document("Files in another format, or without a usable row", (Notes(tuple(refused)),))
    yield Document("Conventions", (Notes(CONVENTIONS),))


# -- figures -----------------------------------------------------------------------------------


def scatter(judged: Sequence[Judged], path: Path) -> None:
    """Predicted against measured time, a panel for each setting or operator, a colour for each machine, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    panels = _panels(judged)
    devices = sorted({item.row.device for item in judged})
    colours = {device: COLOURS[i % len(COLOURS)] for i, device in enumerate(devices)}
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    with pyplot.rc_context(_style()):
        figure, axes = pyplot.subplots(rows, columns, figsize=(3.3 * columns, 3.2 * rows + 0.5), squeeze=False)
        for axis, (title, items) in zip(axes.flat, panels.items(), strict=False):
            _panel(axis, title, items, colours)
        for axis in list(axes.flat)[len(panels) :]:
            axis.set_visible(False)
        _legend(figure, colours)
        figure.tight_layout(rect=(0, 0.5 / (3.2 * rows + 0.5), 1, 1))
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        pyplot.close(figure)


def _style() -> dict[str, Any]:
    names = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "axes.titlecolor")
    return {
        **dict.fromkeys(names, GREY),
        "svg.hashsalt": "costmodel",  # identifiers that do not change from run to run
        "svg.fonttype": "none",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }


def _panels(judged: Iterable[Judged]) -> Mapping[str, list[Judged]]:
    panels: dict[str, list[Judged]] = {}
    for item in judged:
        panels.setdefault(_panel_of(item), []).append(item)
    return dict(sorted(panels.items()))


def _panel_of(item: Judged) -> str:
    row = item.row
    if isinstance(row, ModelRow):
        return f"{row.dtype}, {row.layout}, {row.mode}"
    named = row.op in ("linear", "linear_no_bias", "bmm", "matmul", "conv2d", "softmax", "layer_norm")
    return f"{row.op if named else VECTOR_OPS}, {row.dtype}"


def _panel(axis: Any, title: str, items: Sequence[Judged], colours: Mapping[str, str]) -> None:
    from matplotlib.ticker import NullFormatter

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
        side.set_minor_formatter(NullFormatter())
    axis.set_title(f"{title}: {len(items):,} rows", fontsize=9)


def _thinned(items: Sequence[Judged], key: Callable[[Judged], Any]) -> list[Judged]:
    """At most POINTS_A_PANEL of them, evenly over the measured times: what a figure can show and a page can load."""
    ordered = sorted(items, key=key)
    count = min(len(ordered), POINTS_A_PANEL)
    return [ordered[i * len(ordered) // count] for i in range(count)]


def _legend(figure: Any, colours: Mapping[str, str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], marker="o", linestyle="", color=colour, label=device) for device, colour in colours.items()
    ]
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False, labelcolor=GREY)


if __name__ == "__main__":
    sys.exit(main())
