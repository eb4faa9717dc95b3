"""Analysis as :func:`costmodel.analyze` gives it: the numbers, and what rules and pages make of them."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from costmodel import analysis
from costmodel.explain import Finding, findings
from costmodel.remedies import Remedies, remedies

__all__ = ["Analysis"]


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
