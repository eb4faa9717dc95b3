"""What :func:`costmodel.analyze` and :func:`costmodel.compare` give: the numbers, and what rules and pages make of
them."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from costmodel import analysis, comparison
from costmodel.explain import Finding, findings
from costmodel.remedies import Remedies, remedies

__all__ = ["Analysis", "Comparison"]


class Analysis(analysis.Analysis):
    """A model on a machine that explains itself and can be shown. See :class:`costmodel.analysis.Analysis`."""

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """Where FLOPs mislead on this machine, what costs most time first. See :mod:`costmodel.explain`."""
        return findings(self)

    @cached_property
    def remedies(self) -> Remedies:
        """Changes of the run after which its step takes less memory, and the fewest after which it fits. See
        :mod:`costmodel.remedies`."""
        return remedies(self)

    def to_markdown(self, **options: Any) -> str:
        """The report as GitHub markdown. ``by``, ``top`` and ``columns`` as on the command line."""
        from costmodel.report import render

        return render(self, "markdown", **options)

    def to_json(self) -> str:
        """The report as JSON, after the schema in costmodel/report/schema."""
        from costmodel.report import render

        return render(self, "json")

    def _repr_html_(self) -> str:
        from costmodel.report.as_html import html_fragment
        from costmodel.report.summary import analysis_document

        return html_fragment(analysis_document(self, top=20))


class Comparison(comparison.Comparison):
    """Several models on several machines that can be shown. See :class:`costmodel.comparison.Comparison`."""

    def to_rows(self) -> list[dict[str, Any]]:
        """A dict for each model on each machine, units in the keys: ``pandas.DataFrame(found.to_rows())``."""
        from costmodel.report.compared import contenders_table

        return contenders_table(self).records()

    def to_markdown(self, *, details: bool = False) -> str:
        """The page as GitHub markdown; ``details`` as ``--details`` on the command line."""
        from costmodel.report import render
        from costmodel.report.compared import compared_document

        return render(compared_document(self, details=details), "markdown")

    def to_json(self) -> str:
        """Models, stages and causes as JSON, seconds exact."""
        from costmodel.report.as_json import dump_json
        from costmodel.report.compared import compared_json

        return dump_json(compared_json(self))

    def _repr_html_(self) -> str:
        from costmodel.report.as_html import html_fragment
        from costmodel.report.compared import compared_document

        return html_fragment(compared_document(self))
