"""Writing: whole or not at all, and what cannot be written is said before the work."""

import io
import os
import stat
import sys

import pytest

from costmodel.errors import InputError, OutputError
from costmodel.report import FORMATS, check_writable, render, write
from costmodel.report.document import Document, Paragraph

DOCUMENT = Document("µ", (Paragraph("3×224"),))


def test_a_file_gets_the_rendered_text_in_utf8(tmp_path):
    path = tmp_path / "report.md"
    write(DOCUMENT, "markdown", path)
    assert path.read_bytes().decode("utf-8") == render(DOCUMENT, "markdown")
    assert os.listdir(tmp_path) == ["report.md"]


def test_an_older_file_is_replaced_and_keeps_its_mode(tmp_path):
    path = tmp_path / "report.md"
    path.write_text("old")
    path.chmod(0o640)
    write(DOCUMENT, "markdown", path)
    assert path.read_text(encoding="utf-8").startswith("# µ")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_new_file_has_the_mode_that_the_umask_gives(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("")
    write(DOCUMENT, "markdown", tmp_path / "report.md")
    assert (tmp_path / "report.md").stat().st_mode == plain.stat().st_mode


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "link.md").symlink_to(tmp_path / "real.md")
    write(DOCUMENT, "markdown", tmp_path / "link.md")
    assert (tmp_path / "link.md").is_symlink() and (tmp_path / "real.md").read_text(encoding="utf-8").startswith("#")


def test_a_device_is_written_and_not_replaced():
    write(DOCUMENT, "markdown", os.devnull)
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_when_the_rename_fails_the_old_file_is_whole_and_nothing_is_left(tmp_path, monkeypatch):
    path = tmp_path / "report.md"
    path.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="No space left"):
        write(DOCUMENT, "markdown", path)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["report.md"]


def test_what_cannot_be_written_is_said_with_the_reason(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="does not exist"):
        check_writable(tmp_path / "missing" / "report.md")
    with pytest.raises(OutputError, match="is a directory"):
        check_writable(tmp_path)
    with pytest.raises(OutputError, match="is not a directory"):
        check_writable(tmp_path / "file" / "report.md")


@pytest.mark.parametrize("target", ["report.md", "old.md"])
def test_a_file_that_may_not_be_written_is_refused(tmp_path, monkeypatch, target):
    (tmp_path / "old.md").write_text("old")
    monkeypatch.setattr(
        os, "access", lambda path, mode: False
    )  # root may write anywhere, so permission bits prove nothing
    with pytest.raises(OutputError, match=r"may not be changed|no file may be made"):
        check_writable(tmp_path / target)


def test_nothing_is_rendered_for_a_path_that_cannot_be_written(tmp_path):
    with pytest.raises(OutputError):
        write(object(), "markdown", tmp_path / "missing" / "report.md")  # an object that no format could render


@pytest.mark.parametrize("format", [f for f in FORMATS if f != "csv"])
def test_a_stdout_that_is_not_utf8_gets_ascii(monkeypatch, format):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", newline="\n")
    monkeypatch.setattr(sys, "stdout", stream)
    write(DOCUMENT, format, "-")
    stream.flush()
    assert raw.getvalue().decode("ascii")


def test_an_unknown_format_is_named_beside_the_known_ones():
    with pytest.raises(InputError, match=r"'markdwon'[\s\S]*markdown[\s\S]*did you mean markdown"):
        render(DOCUMENT, "markdwon")


def test_several_documents_follow_one_another_in_every_format():
    other = Document("second", (Paragraph("q"),))
    for format in ("table", "markdown", "json", "html"):
        text = render([DOCUMENT, other], format)
        assert text.index("224") < text.rindex("second") < text.rindex("q")
