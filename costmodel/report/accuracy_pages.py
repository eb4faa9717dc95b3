"""The accuracy report: one page for people, and a page for each measured file behind it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from costmodel.report.accuracy import (
    CONVENTIONS,
    accuracy_document,
    baselines_table,
    groups_table,
    narrowed,
    regimes_table,
)
from costmodel.report.as_markdown import render_markdown
from costmodel.report.columns import text_column
from costmodel.report.document import Block, Code, Column, Document, Figure, Notes, Paragraph, Table
from costmodel.validate import (
    BASELINES,
    NOT_MODELLED,
    Group,
    Judged,
    ModelRow,
    Validation,
    as_one,
    grouped,
)

__all__ = ["FOLDER", "accuracy_pages", "kind_of_operator"]

#: Where the pages behind the first one lie, relative to it.
FOLDER = "accuracy"

INTRODUCTION = (
    "Predictions held against {which} of public measurements that costmodel can judge: {rows}. Whole models are "
    "predicted from their source and a machine's profile alone; nothing was run. Operators that were timed as eager "
    "calls show the time of a host that no profile knows: its floor, its lead over the device and its drift are read "
    "off the smallest calls of the same file, so these rows test kernels, not hosts. fitted_constants.md shows what a "
    "constant host time does to them, and the errors on families and machines that no constant was fitted to."
)

READING = (
    "median, p90: of |predicted / measured - 1|, in %; half of the rows are closer than the median, one in ten is "
    "further off than p90",
    "bias: the median of predicted / measured - 1 with its sign; below 0 predictions are too fast",
    "covered: rows whose predicted interval holds the measured time, in %; 90 is what the intervals aim at",
    "Spearman: rank correlation; 1 where slower models are predicted slower without exception",
    "baselines (median / p90 on the same rows): FLOPs times the one scale that suits the rows best; each operator at "
    "the datasheet's roofs; 85 % of the roofs and 3 µs a kernel",
    "operators: rows at the host's floor, which say nothing of kernels, are left out here",
)


def accuracy_pages(
    validations: Mapping[str, Validation], refused: Sequence[str], figures: Mapping[str, tuple[str, str]], command: str
) -> dict[str, str]:
    """Markdown by path: ``accuracy.md``, and below :data:`FOLDER` a page a file and one of what is not modelled.

    ``validations`` are by the stem of the measured file, ``refused`` sentences on files that could not be judged,
    ``figures`` (path from accuracy.md, caption) by stem, ``command`` what writes the pages.
    """
    validations = dict(sorted(validations.items(), key=lambda pair: -_models(pair[1])))  # whole models first
    pages = {"accuracy.md": _linked(render_markdown(_first(validations, refused, figures, command)), up="")}
    for stem, validation in validations.items():
        page = Document(stem, tuple(_behind(stem, validation, figures.get(stem))))
        pages[f"{FOLDER}/{stem}.md"] = _linked(render_markdown(page), up="../")
    pages[f"{FOLDER}/not_modelled.md"] = _linked(render_markdown(_not_modelled()), up="../")
    return pages


def _linked(page: str, *, up: str) -> str:
    """The page with names of other pages as links; ``up`` leads from it to accuracy.md.

    >>> _linked("See accuracy/timm.md and fitted_constants.md.", up="")
    'See [accuracy/timm.md](accuracy/timm.md) and [fitted_constants.md](fitted_constants.md).'
    """
    return re.sub(
        rf"(?<![\w/(\[])((?:{FOLDER}/)?[a-z]\w*)\.md\b", lambda found: f"[{found[0]}]({up}{found[1]}.md)", page
    )


# -- the first page ----------------------------------------------------------------------------


def _first(
    validations: Mapping[str, Validation], refused: Sequence[str], figures: Mapping[str, tuple[str, str]], command: str
) -> Document:
    judged = [item for validation in validations.values() for item in validation.judged]
    which = "a sample of the rows" if any(v.not_sampled for v in validations.values()) else "every row"
    summary = [(name, group) for stem, v in validations.items() for name, group in _summary(stem, v.judged)]
    models = [item for item in judged if isinstance(item.row, ModelRow)]
    blocks: list[Block] = [
        Paragraph(INTRODUCTION.format(which=which, rows=f"{len(judged):,} rows of {len(validations)} files")),
        Notes(READING, title="What the columns mean"),
        _summary_table(summary),
    ]
    largest = max(validations, key=lambda stem: _models(validations[stem]), default="")
    if largest in figures and _models(validations[largest]):
        blocks.append(Figure(figures[largest][0], f"{largest}: predicted against measured time", figures[largest][1]))
    blocks += [groups_table(grouped(models), "Whole models, by machine and run")] * bool(models)
    blocks += [regimes_table(models)] * any(item.waiting_share is not None for item in models)
    blocks += _left_out(validations, refused)
    blocks.append(Notes(tuple(_links(validations)), title="More"))
    blocks += [Paragraph("This page and those behind it are written by:"), Code(command)]
    return Document("Accuracy: predicted against measured", tuple(blocks))


def _models(validation: Validation) -> int:
    return sum(isinstance(item.row, ModelRow) for item in validation.judged)


def _summary(stem: str, judged: Sequence[Judged]) -> Iterable[tuple[str, Group]]:
    """For whole models a group for each phase, eager and compiled, fp32 and half precision; for operators one for each
    kind of them.
    """
    parts: dict[str, list[Judged]] = {}
    for item in judged:
        if not getattr(item.row, "at_floor", False):
            parts.setdefault(f"{stem}: {_part(item)}", []).append(item)
    for name, items in sorted(parts.items()):
        yield name, as_one(items)


def _part(item: Judged) -> str:
    row = item.row
    if isinstance(row, ModelRow):
        kind = "models" if row.phase == "inference" else f"models, {row.phase}"
        return f"{kind}, {row.mode}, {row.dtype if row.dtype == 'fp32' else 'half precision'}"
    return kind_of_operator(row.op)


def kind_of_operator(op: str) -> str:
    """The name under which an operator's rows are told together: its own, but for what is element by element.

    >>> kind_of_operator("sdpa_context"), kind_of_operator("gelu")
    ('sdpa_context', 'element-wise')
    """
    known = ("linear", "linear_no_bias", "bmm", "matmul", "softmax", "layer_norm")
    return op if op in known or op.startswith(("conv", "sdpa")) else "element-wise"


def _summary_table(summary: Sequence[tuple[str, Group]]) -> Table:
    """Scores and baselines of the summary's groups in one table."""
    groups = [group for _, group in summary]
    scores, baselines = groups_table(groups, "Summary"), baselines_table(groups, "")
    wanted = ("n", "median_ape", "p90_ape", "bias", "interval_coverage")
    columns = (
        text_column("name", "measurements", importance=100),
        *(column for column in scores.columns if column.key in wanted),
        *(column for column in baselines.columns if column.key in BASELINES),
    )
    rows = tuple({**row, "name": name} for row, (name, _) in zip(scores.rows, summary, strict=True))
    return narrowed(Table(title="Summary", columns=columns, rows=rows))


def _left_out(validations: Mapping[str, Validation], refused: Sequence[str]) -> Iterable[Block]:
    counts = Counter((row.reason, stem) for stem, v in validations.items() for row in v.unusable)
    counts += Counter({("not in the sample", s): v.not_sampled for s, v in validations.items() if v.not_sampled})
    if counts:
        yield Table(
            title="Rows that were not judged",
            columns=(
                text_column("reason", "reason"),
                Column(key="n", heading="rows", render="{:,}".format),
                text_column("file", "file"),
            ),
            rows=tuple({"reason": r, "n": n, "file": stem} for (r, stem), n in counts.most_common()),
        )
    if refused:
        yield Notes(tuple(refused), title="Files in a format that is not read yet, or without a usable row")


def _links(validations: Mapping[str, Validation]) -> Iterable[str]:
    for stem, validation in validations.items():
        yield (
            f"{FOLDER}/{stem}.md: {len(validation.judged):,} rows by machine and group, by family and class of "
            "kernels, with their baselines, and the rows furthest off"
        )
    yield f"{FOLDER}/not_modelled.md: what no prediction accounts for yet, and how everything here is counted"
    yield "accuracy_cpu.md: a CPU that costmodel calibrate measured, eager"


# -- the pages behind --------------------------------------------------------------------------


def _behind(stem: str, validation: Validation, figure: tuple[str, str] | None) -> Iterable[Block]:
    """What one measured file holds; the conventions stand on the page of what is not modelled."""
    page = accuracy_document(validation, worst=20)
    first, *rest = (block for block in page.blocks if not isinstance(block, Notes))
    yield first
    yield Paragraph(f"What columns mean stands in accuracy.md, how everything is counted in {FOLDER}/not_modelled.md.")
    if figure is not None:
        yield Figure(f"../{figure[0]}", f"{stem}: predicted against measured time", figure[1])
    yield from rest


def _not_modelled() -> Document:
    rows = tuple({"what": what, "meaning": meaning} for what, meaning in NOT_MODELLED)
    columns = (text_column("what", "what"), text_column("meaning", "what it means for a prediction"))
    return Document("Not modelled yet", (Table(columns=columns, rows=rows), Notes(CONVENTIONS, title="Conventions")))
