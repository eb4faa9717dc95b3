"""The page of an analysis that can be explored, or of several: one HTML file with data and scripts, and no network.

``page.css`` and ``page.js`` are written by hand and ship with the package. What they show is in a block of JSON; names
reach the page as text alone, and a policy in its head forbids it to fetch anything.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from costmodel.explain import CAUSES, Split, split
from costmodel.explain.kinds import KINDS, kind_of
from costmodel.nodes import operator_word
from costmodel.report.as_html import html_fragment
from costmodel.report.document import Document, KeyValues, Table
from costmodel.report.escape import for_html, visible
from costmodel.report.figures import COLOURS
from costmodel.report.model_figures import roofs_of
from costmodel.report.perfetto.calls import calls_of
from costmodel.report.summary import PREDICTED, conditions, coverage_sentence, machines_document, summary_facts
from costmodel.report.text import module_spans
from costmodel.units import format_bytes, format_count, format_quantity, format_seconds

__all__ = ["MOST_BYTES", "explorer_page"]

#: No page is larger [B]: of a model with very many operators it leaves out shapes and what tooltips say.
MOST_BYTES = 3_000_000

#: Levels of modules above each other on the timeline.
_LEVELS = 3

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def explorer_page(analyses: Sequence[Any]) -> str | None:
    """The whole page, as HTML text of less than :data:`MOST_BYTES`: one analysis, or several of one model (machines,
    modes) to choose from, below a table of them. None where it would be larger even without details."""
    found = [split(analysis) for analysis in analyses]
    for in_detail in (True, False):
        page = _page(analyses, found, in_detail)
        if len(page.encode()) < MOST_BYTES:
            return page
    return None


def _page(analyses: Sequence[Any], splits: Sequence[Split], in_detail: bool) -> str:
    first = analyses[0]
    titles = [f"{analysis.model.name} on {analysis.hardware.title}" for analysis in analyses]
    title = titles[0] if len(analyses) == 1 else f"{first.model.name} in {len(analyses)} runs"
    runs = [_run(analysis, found, in_detail) for analysis, found in zip(analyses, splits, strict=True)]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{for_html(title)}</title>
<style>
{_file("page.css")}</style>
</head>
<body>
<header><div><h1>{for_html(title)}</h1><p>{for_html(conditions(*analyses))}</p></div>
<button id="theme" title="light or dark">dark</button></header>
{_choice(analyses)}{"".join(runs)}
<script>
{_file("page.js")}</script>
</body>
</html>
"""


def _choice(analyses: Sequence[Any]) -> str:
    """A table of several runs, and the list to choose one from."""
    if len(analyses) == 1:
        return ""
    table = next(block for block in machines_document(analyses).blocks if isinstance(block, Table))
    body = html_fragment(Document("", (table,))).partition("</h1>")[2]
    body = body.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")
    options = "".join(
        f"<option>{for_html(f'{analysis.hardware.title}, {analysis.execution.engine}')}</option>"
        for analysis in analyses
    )
    return f'{body}<h2><label>Look at <select id="run">{options}</select></label></h2>'


def _run(analysis: Any, found: Split, in_detail: bool) -> str:
    """The section of one analysis, with its data."""
    data = json.dumps(_data(analysis, found, in_detail), separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    for sign in "<>&":
        data = data.replace(sign, f"\\u{ord(sign):04x}")
    return f"""<section class="run">
{_tiles(analysis)}
<h2>Where the time goes</h2>
<div class="bounds"></div><br>
<div class="kinds"></div><br>
<div class="phases"></div>
{_findings(analysis)}
<h2>From FLOPs to time</h2>
<div class="charts">
<figure><figcaption>{for_html(_alone(found))}</figcaption><div class="causes"></div></figure>
<figure><figcaption>{for_html(_under_roofs(analysis))}</figcaption><div class="roofline"></div></figure>
</div>
<h2>Timeline</h2>
<figure><div class="tools"><button class="zoom-in">+</button><button class="zoom-out">−</button>
<button class="zoom-all">all</button><span class="note">wheel or + − zooms, drag or arrows move, double click shows all
</span></div><canvas class="lanes" tabindex="0" aria-label="timeline of the step"></canvas></figure>
<h2 class="table">By module</h2>
<div class="tools"><input type="search" class="filter" placeholder="filter: layer3 conv2d" aria-label="filter">
<button class="unfold">unfold all</button><button class="fold">fold all</button>
<label class="note"><input type="checkbox" class="flat"> operators alone</label><span class="note shown"></span></div>
<div class="scroll"><table class="modules"></table></div>
{_notes(analysis)}
<script type="application/json" class="data">{data}</script>
</section>
"""


def _file(name: str) -> str:
    from importlib.resources import files

    return (files("costmodel.report.explorer") / name).read_text(encoding="utf-8")


# -- what stands on the page -------------------------------------------------------------------


def _tiles(analysis: Any) -> str:
    totals, batch = analysis.totals, analysis.execution.batch
    low, high = format_seconds(totals.latency_low_s), format_seconds(totals.latency_high_s)
    tiles = [
        (format_seconds(totals.latency_s), f"a step ({low} to {high})"),
        (f"{batch / totals.latency_s:,.0f}/s" if totals.latency_s else "–", f"samples, batch {batch}"),
        (format_quantity(totals.macs, "MAC"), f"{format_quantity(totals.flops, 'FLOP')} in all"),
        (format_count(totals.params), f"parameters, {format_bytes(totals.param_bytes)}"),
        (format_bytes(totals.peak_memory_bytes), "peak memory"),
        (f"{totals.kernels:,}", f"kernels for {len(analysis.bound.nodes):,} operators"),
    ]
    if totals.power_w is not None:
        tiles.append((format_quantity(totals.energy_j, "J"), f"energy, at {totals.power_w:.0f} W"))
    shown = "".join(
        f'<div class="tile"><b>{for_html(value)}</b><span>{for_html(name)}</span></div>' for value, name in tiles
    )
    return f'<div class="tiles">{shown}</div>'


def _findings(analysis: Any) -> str:
    if not analysis.findings:
        return ""
    items = "".join(
        f"<li><b>{for_html(format_seconds(f.seconds_at_stake))}</b>: {for_html(f.message)}{_change(f)}</li>"
        for f in analysis.findings
    )
    return f'<h2>Where FLOPs mislead</h2><ul class="findings">{items}</ul>'


def _change(finding: Any) -> str:
    """What would help, and what it saves."""
    if not finding.change:
        return ""
    saves = finding.saving_s if finding.saving_s and finding.saving_s > 0 else None
    said = finding.change if saves is None else f"{finding.change} (saves {format_seconds(saves)})"
    return f' <span class="change">→ {for_html(said)}</span>'


def _alone(found: Split) -> str:
    return (
        f"All FLOPs at the peak of {found.peak.dtype} on {found.peak.engine} units, and what each cause adds or saves"
    )


def _under_roofs(analysis: Any) -> str:
    busy = analysis.timeline.busy_s or 1.0
    moves = math.fsum(row.busy_s for row in analysis.kernels if not row.flops) / busy
    hidden = f"; the {moves:.1%} of the device's time that moves bytes alone has no place here" if moves > 1e-3 else ""
    return f"A dot for each kernel, its area is its time{hidden}. Click a dot to find it in the table."


def _notes(analysis: Any) -> str:
    """What stands below: the facts as text, closed forms, coverage and conventions."""
    facts = html_fragment(Document("In words", (KeyValues(summary_facts(analysis)),))).replace("h1>", "h2>")
    forms = analysis.closed_forms.get("flops")
    closed = f"<h2>FLOPs in closed form</h2><pre>{for_html(forms, keep_lines=True)}</pre>" if forms else ""
    said = [coverage_sentence(analysis.coverage), *analysis.symbol_notes, PREDICTED, *analysis.conventions]
    items = "".join(f"<li>{for_html(item)}</li>" for item in said)
    return f'{facts}{closed}<h2>Conventions</h2><ul class="notes">{items}</ul>'


# -- what the scripts show ---------------------------------------------------------------------


def _data(analysis: Any, found: Split, in_detail: bool) -> dict[str, Any]:
    kinds = {name: KINDS.index(kind) for name, kind in kind_of(analysis).items()}
    followed = any(row.dram_bytes is not None for row in analysis.kernels)
    return {
        "latency_s": _short(analysis.latency),
        "kinds": KINDS,
        "colours": COLOURS,
        "ops": _columns(_operators(analysis, kinds, in_detail)),
        "totals": {"params": analysis.totals.params},
        "causes": list(_causes(analysis, found)),
        "dots": list(_dots(analysis, kinds)),
        "roofs": [{"label": roof.label, "flop_per_s": roof.flop_per_s} for roof in roofs_of(analysis, found)],
        "bytes_per_s": analysis.hardware.dram_bytes_per_s,
        "level": "device memory" if followed else "traffic",
        "lanes": list(_lanes(analysis, kinds, in_detail)),
    }


def _short(value: float) -> float:
    """Six digits are more than a page shows."""
    return float(f"{value:.6g}")


def _columns(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Rows as one list a key, which takes half the room."""
    return {key: [row[key] for row in rows] for key in rows[0]} if rows else {}


def _operators(analysis: Any, kinds: dict[str, int], in_detail: bool) -> list[dict[str, Any]]:
    return [
        {
            "name": visible(row.name),
            "op": operator_word(row.op),
            "module": visible(row.module),
            "kind": kinds[row.name],
            "phase": row.phase,
            "flops": row.flops,
            "macs": row.macs,
            "params": row.params,
            "bytes": row.bytes_read + row.bytes_written,
            "time": _short(row.latency_s),
            "bound": row.bound,
            "algorithm": row.algorithm,
            "inputs": row.inputs if in_detail else "",
            "outputs": row.outputs if in_detail else "",
        }
        for row in analysis.rows()
    ]


def _causes(analysis: Any, found: Split) -> Iterator[dict[str, Any]]:
    nodes = analysis.bound.nodes
    peak = f"all FLOPs at {format_quantity(found.peak.flop_per_s, 'FLOP/s')}"
    yield {"label": "FLOPs alone", "seconds": _short(found.flops_alone_s), "meaning": peak, "nodes": []}
    for cause in found.causes:
        worst = [(visible(nodes[node].name), _short(seconds)) for node, seconds in cause.nodes[:4]]
        meaning = CAUSES[cause.cause].meaning
        yield {"label": cause.label, "seconds": _short(cause.seconds), "meaning": meaning, "nodes": worst}


def _dots(analysis: Any, kinds: dict[str, int]) -> Iterator[dict[str, Any]]:
    """One for all launches of a kernel for operators of a kind, where it computes."""
    groups: dict[tuple[int, int], list[Any]] = {}
    for launch, row in zip(analysis.plan.launches, analysis.kernels, strict=True):
        if row.intensity and row.busy_s:
            groups.setdefault((kinds[row.name], launch.kernel), []).append(row)
    for (kind, _), rows in groups.items():
        first = max(rows, key=lambda row: row.busy_s)
        flops, busy = sum(row.flops for row in rows), math.fsum(row.busy_s for row in rows)
        moved = sum(row.bytes if row.dram_bytes is None else row.dram_bytes for row in rows)
        peak = analysis.hardware.find_peak(first.engine, first.dtype, first.accumulate)
        yield {
            "x": _short(flops / moved),
            "y": _short(flops / busy),
            "seconds": _short(busy),
            "kind": kind,
            "label": visible(first.name),
            "algorithm": first.algorithm,
            "tile": "x".join(map(str, first.tile)) if first.tile else "",
            "bound": first.bound,
            "count": len(rows),
            "peak": (peak or analysis.hardware.peak("vector", "fp32")).flop_per_s,
        }


def _lanes(analysis: Any, kinds: dict[str, int], in_detail: bool) -> Iterator[dict[str, Any]]:
    """Modules, the device and the host, each as blocks (start, end, kind, label, lines of its tooltip), and what is
    allocated over time as a curve."""
    rows = analysis.kernels
    phases = list(module_spans([(row.phase, row.start_s, row.end_s) for row in rows]))
    if len({phase for phase, _, _ in phases}) > 1:
        yield {"name": "phases", "blocks": [[_short(start), _short(end), -1, phase] for phase, start, end in phases]}
    spans = list(module_spans([(row.module, row.start_s, row.end_s) for row in rows]))
    for level in range(_LEVELS):
        found = [span for span in spans if span[0].count(".") == level]
        if found:
            blocks = [[_short(start), _short(end), -1, visible(path)] for path, start, end in found]
            yield {"name": "" if level else "modules", "blocks": blocks}
    ahead = analysis.hardware.family.issues_ahead
    blocks = [
        [_short(row.start_s), _short(row.end_s), kinds[row.name], visible(row.name), *(_said(row) if in_detail else ())]
        for row in rows
    ]
    yield {"name": "device" if ahead else "CPU", "blocks": blocks}
    if ahead:
        names = [node.name for node in analysis.bound.nodes]
        calls = [
            [_short(call.start_s), _short(call.end_s), kinds[names[call.node]], call.name, visible(names[call.node])]
            for call in calls_of(analysis)
            if call.end_s > call.start_s
        ]
        yield {"name": "host", "blocks": calls}
    course = analysis.memory.course
    if course:
        curve = [[_short(row.start_s), nbytes] for row, nbytes in zip(rows, course, strict=True)]
        yield {"name": "memory", "blocks": [], "curve": curve, "most": max(course)}


def _said(row: Any) -> Iterator[str]:
    """What a tooltip says of a kernel."""
    tile = " " + "x".join(map(str, row.tile)) if row.tile else ""
    yield f"{row.algorithm}{tile} on {row.units}, bound by {row.bound}"
    if row.dram_bytes is None:
        moved = f"{format_bytes(row.bytes)} moved"
    else:
        moved = f"{format_bytes(row.dram_bytes)} of DRAM, {format_bytes(row.cache_bytes)} of cache"
    yield f"{format_quantity(row.flops, 'FLOP')}, {moved}"
    if row.waited_s > 0:
        yield f"after {format_seconds(row.waited_s)} of waiting for the host"
