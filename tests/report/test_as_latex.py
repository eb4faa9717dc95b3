"""LaTeX: every name is text, tables are balanced and whole, and a real LaTeX takes them where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
import torch
from torch import nn

import costmodel
from costmodel.report import render
from costmodel.report.compared import compared_document
from costmodel.report.document import Code, Column, Document, Figure, KeyValues, Notes, Paragraph, Table
from costmodel.report.escape import for_latex

EVIL = r"\input{x} 50% a_b #1 $x$ ~^ {&} <|> \\ é 日 " + "\x00"


def lines_of(text: str, environment: str) -> list[str]:
    return re.search(rf"\\begin{{{environment}}}.*?\\end{{{environment}}}", text, re.S).group(0).splitlines()


def test_every_sign_is_text():
    shown = for_latex(EVIL)
    for command in re.findall(r"\\([a-zA-Z]+)", shown):
        assert command in {"textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater", "textbar"}
    assert not re.search(r"(?<!\\)[%#&_]", shown) and shown.count("{") - shown.count(r"\{") == shown.count(
        "}"
    ) - shown.count(r"\}")
    assert "é" in shown and "U+65E5" in shown


def test_a_table_holds_what_a_page_holds():
    columns = (
        Column(key="a", heading="name", align="left"),
        Column(key="b", heading="t4", unit="ms"),
        Column(key="c", heading="t4", unit="×"),
    )
    table = Table(columns=columns, rows=({"a": EVIL, "b": 1.5, "c": 2},), footer=({"a": "total", "b": 3},), title=EVIL)
    lines = lines_of(render(Document("t", (table,)), "latex"), "tabular")
    assert r"\multicolumn{2}{c}{t4}" in lines[2] and lines[3] == r"\cmidrule(lr){2-3}"
    assert lines[4] == r" & ms & $\times$ \\"
    assert lines[6:9] == [f"{for_latex(EVIL)} & 1.5 & 2 \\\\", r"\midrule", r"total & 3 &  \\"]


def test_what_is_no_table_is_a_comment():
    blocks = (Paragraph(EVIL), Notes((EVIL,), EVIL), Code(EVIL, EVIL), Figure(EVIL, EVIL, EVIL))
    text = render(Document(EVIL, blocks), "latex")
    assert all(line.startswith("%") for line in text.splitlines() if line)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(*(nn.Conv2d(8, 8, 3) for _ in range(50)))

    def forward(self, x):
        return self.layers(x)


@pytest.fixture(scope="module")
def pages():
    net, shallow = Net().eval(), nn.Conv2d(8, 8, 3).eval()
    analysis = costmodel.analyze(net, torch.empty(4, 8, 128, 128), hw="a100")
    compared = costmodel.compare([net, shallow], torch.empty(4, 8, 128, 128), hw=["a100", "t4"])
    return [
        render(analysis, "latex", top=5),
        render(analysis, "latex", top=0),
        render(analysis, "latex", by="kernel", top=5),
        render([analysis, analysis.at(hw="t4")], "latex"),
        render(compared_document(compared, details=True), "latex"),
        render(Document(EVIL, (KeyValues(((EVIL, EVIL),)), Notes((EVIL,), EVIL), Code(EVIL, EVIL))), "latex"),
    ]


def test_long_tables_may_break_over_pages(pages):
    assert r"\begin{longtable}" in pages[1] and r"\usepackage{longtable}" in pages[1].splitlines()[0]
    assert r"\begin{longtable}" not in pages[0]
    for page in pages:
        assert len(re.findall(r"\\begin\{", page)) == len(re.findall(r"\\end\{", page))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no LaTeX on this machine")
def test_latex_sets_them(pages, tmp_path):
    head = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{booktabs,longtable}\begin{document}"
    (tmp_path / "page.tex").write_text("\n".join([head, *pages, r"\end{document}"]), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2000:]
