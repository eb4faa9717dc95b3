"""A torchaudio whose compiled library does not fit this torch is imported as a build without one."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("torch")

from costmodel.sources import torchaudio_library


@pytest.fixture
def misfit(tmp_path, monkeypatch):
    """An installed torchaudio whose library is no library."""
    package = tmp_path / "torchaudio"
    (package / "lib").mkdir(parents=True)
    (package / "lib" / "_torchaudio.so").write_bytes(b"compiled for another torch")
    (package / "_extension").mkdir()
    (package / "_extension" / "__init__.py").write_text("raise OSError('the library does not load')\n")
    (package / "__init__.py").write_text("from torchaudio._extension import fail_if_no_align\n")
    (package / "functional.py").write_text(
        "from torchaudio._extension import fail_if_no_align\n\n\n@fail_if_no_align\ndef forced_align():\n    return 1\n"
    )
    for name in [n for n in sys.modules if n.partition(".")[0] == "torchaudio"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    torchaudio_library.make_torchaudio_importable.cache_clear()
    yield
    torchaudio_library.make_torchaudio_importable.cache_clear()
    for name in [n for n in sys.modules if n.partition(".")[0] == "torchaudio"]:
        del sys.modules[name]


def test_it_is_imported_without_its_library_and_refuses_what_needs_it(misfit) -> None:
    assert torchaudio_library.make_torchaudio_importable()
    from torchaudio import functional

    with pytest.raises(RuntimeError, match="forced_align needs its compiled library"):
        functional.forced_align()


def test_without_the_stand_in_it_is_not_imported(misfit) -> None:
    with pytest.raises(OSError, match="does not load"):
        import torchaudio  # noqa: F401


def test_nothing_is_done_where_no_torchaudio_is(monkeypatch) -> None:
    monkeypatch.setattr(torchaudio_library, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "torchaudio", raising=False)
    torchaudio_library.make_torchaudio_importable.cache_clear()
    assert not torchaudio_library.make_torchaudio_importable()
    assert "torchaudio._extension" not in sys.modules
    torchaudio_library.make_torchaudio_importable.cache_clear()
