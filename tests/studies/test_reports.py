"""The committed reports are what the code says today, the same bytes every time, and readable everywhere."""

from __future__ import annotations

import builtins
import re
import sys
from importlib import metadata
from pathlib import Path
from xml.etree import ElementTree

import pytest

from costmodel.cli import main
from costmodel.report.figures import PANEL
from costmodel.studies import Bench, files_of, names

ROOT = Path(__file__).parents[2]
REPORTS = ROOT / "reports"


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    """Every file of every report, generated anew, by its path below the folder of reports. Takes half a minute: each
    network is traced once, by the one bench that all reports share."""
    bench = Bench()
    return {path: text for name in names() for path, text in files_of(name, bench).items()}


def matplotlib_pinned() -> str:
    """The version that constraints.txt pins for today's Pythons: the committed figures are its bytes."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    newest = next(line for line in lines if line.startswith("matplotlib==") and "<" not in line)
    return newest.partition("==")[2].partition(";")[0].strip()


def test_committed_pages_are_up_to_date(written: dict[str, str]) -> None:
    stale = [
        path for path, text in written.items()
        if path.endswith(".md") and (REPORTS / path).read_text(encoding="utf-8") != text
    ]  # fmt: skip
    assert not stale, "write them anew: costmodel report all"


def test_committed_figures_are_up_to_date(written: dict[str, str]) -> None:
    if metadata.version("matplotlib") != matplotlib_pinned():
        pytest.skip("another version of matplotlib draws other bytes")
    stale = [
        path for path, text in written.items()
        if path.endswith(".svg") and (REPORTS / path).read_text(encoding="utf-8") != text
    ]  # fmt: skip
    assert not stale, "draw them anew: costmodel report all"


def test_every_figure_is_shown_and_every_shown_figure_is_there(written: dict[str, str]) -> None:
    shown = {path for text in written.values() for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)}
    assert shown == {path for path in written if path.endswith(".svg")}


def test_figures_have_a_panel_of_their_own_and_no_letters_that_a_font_could_move(written: dict[str, str]) -> None:
    for path, text in written.items():
        if path.endswith(".svg"):
            tags = [element.tag.rpartition("}")[2] for element in ElementTree.fromstring(text).iter()]  # noqa: S314
            assert "text" not in tags and "path" in tags, path
            assert f"fill: {PANEL}" in text, path
            assert "date" not in tags and "/home" not in text, path


TEXT = re.compile(r"translate\(([-\d.]+) ([-\d.]+)\)( rotate\(-90\))? scale\(([\d.]+)")
LETTER = 64  # the width of a wide one, in the units of its font: hundredths of its size


def ends_of_words(svg: str) -> list[tuple[float, float]]:
    """Where each line of letters begins and ends: groups of outlines, each put behind the one before."""
    found = []
    for group in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}g"):  # noqa: S314
        if place := TEXT.search(group.get("transform", "")):
            x, y, upright, scale = float(place[1]), float(place[2]), bool(place[3]), float(place[4])
            offsets = [
                float(m[1]) for use in group if (m := re.search(r"translate\(([-\d.]+)", use.get("transform", "")))
            ]
            length = scale * (max(offsets, default=0.0) + LETTER)
            found += [(x, y), (x, y - length) if upright else (x + length, y)]
    return found


def test_no_letter_is_cut_off_by_the_edge(written: dict[str, str]) -> None:
    for path, text in written.items():
        if path.endswith(".svg"):
            width, height = (float(n) for n in re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text).groups())
            ends = ends_of_words(text)
            assert len(ends) > 20, path
            assert all(0 <= x <= width and 0 <= y <= height for x, y in ends), path


@pytest.mark.parametrize("name", names())
def test_pages_open_with_numbers(name: str, written: dict[str, str]) -> None:
    """A person should learn something in the first ten lines: a paragraph with figures, then a picture or a table."""
    head = written[f"{name}.md"].splitlines()[:10]
    assert head[0].startswith("# ")
    assert len(re.findall(r"\d", head[2])) >= 5
    assert any(line.startswith(("![", "|")) for line in head[3:])


@pytest.mark.parametrize("name", names())
def test_pages_hold_no_trace_of_a_failed_number(name: str, written: dict[str, str]) -> None:
    text = written[f"{name}.md"]
    assert not re.search(r"\bnan\b|\binf\b|None|Traceback|<costmodel|0x[0-9a-f]{6}", text)


def test_links_between_pages_lead_somewhere(written: dict[str, str]) -> None:
    links = {link for text in written.values() for link in re.findall(r"\]\(([\w.]+\.md)\)", text)}
    assert {"published_figures.md", "resnet_abcd.md"} <= links
    assert all((REPORTS / link).exists() for link in links)


def test_the_same_bytes_every_time() -> None:
    once, again = (files_of("char_cnn", Bench()) for _ in range(2))
    assert once == again


# -- the command -----------------------------------------------------------------------------------


def test_reports_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report"]) == 0
    assert capsys.readouterr().out.split() == ["all", *names()]


def test_one_report_is_written_to_a_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["report", "char_cnn", "-o", str(tmp_path / "new")]) == 0
    assert (tmp_path / "new" / "char_cnn.md").read_text(encoding="utf-8").startswith("# A character CNN")
    assert (tmp_path / "new" / "figures" / "char_cnn.svg").exists()
    assert capsys.readouterr().out.strip().endswith("char_cnn.md")


def test_an_unknown_report_is_refused_before_anything_is_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["report", "char_cnn", "resnet50_a10", "-o", str(tmp_path / "new")]) == 2
    assert "did you mean resnet50_a100" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_made_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert main(["report", "char_cnn", "-o", str(tmp_path / "file" / "reports")]) == 2
    assert "cannot make" in capsys.readouterr().err


def test_without_matplotlib_the_error_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: object, **options: object) -> object:
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *args, **options)  # type: ignore[arg-type]

    for module in [m for m in sys.modules if m.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", refuse)
    assert main(["report", "char_cnn", "-o", str(tmp_path)]) == 2
    assert "pip install matplotlib" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
