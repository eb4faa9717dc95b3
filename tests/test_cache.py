"""The cache: what it serves, what it refuses, and that damage is mended with a warning."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import subprocess
import sys
import textwrap

import pytest

from costmodel import cache
from costmodel.errors import CacheWarning
from costmodel.traced import load_trace

NET = "from torch import nn\ndef make():\n    return nn.Conv2d(3, {channels}, 3), {inputs}\n"
INPUTS = "(__import__('torch').empty(1, 3, 8, 8, device='meta'),)"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("COSTMODEL_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def request_name(folder):
    file = folder / "net.py"
    file.write_text(NET.format(channels=4, inputs=INPUTS))
    return f"{file}:make"


def entries(folder):
    return sorted((folder / "cache").glob("*.json"))


def test_a_second_trace_comes_from_the_cache(folder, request_name, monkeypatch):
    first = load_trace(request_name)
    assert len(entries(folder)) == 1
    monkeypatch.setattr("costmodel.traced._loaded", lambda *_: pytest.fail("traced again"))
    assert load_trace(request_name).graph == first.graph


def test_a_changed_source_file_makes_the_entry_stale(folder, request_name):
    assert load_trace(request_name).graph.param_count == 4 * 27 + 4
    (folder / "net.py").write_text(NET.format(channels=8, inputs=INPUTS))
    script = f"from costmodel.traced import load_trace; print(load_trace({request_name!r}).graph.param_count)"
    fresh = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert fresh.stdout.strip() == str(8 * 27 + 8)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace(b"batch", b"bitch", 1),
        lambda text: b"",
        lambda text: b"\x00\xff not a cache file",
    ],
)
def test_a_damaged_entry_is_rebuilt_with_a_warning(folder, request_name, damage):
    whole = load_trace(request_name)
    (entry,) = entries(folder)
    entry.write_bytes(damage(entry.read_bytes()))
    with pytest.warns(CacheWarning, match="damaged"):
        assert load_trace(request_name).graph == whole.graph
    assert load_trace(request_name).graph == whole.graph  # mended: no warning now


def test_code_in_a_cache_file_is_not_run(folder, request_name):
    whole = load_trace(request_name)
    (entry,) = entries(folder)
    payload = entry.read_bytes().partition(b"\n")[2].replace(b'"batch"', b"\"__import__('os').abort()\"")
    entry.write_bytes(hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)
    with pytest.warns(CacheWarning, match="damaged"):
        assert load_trace(request_name).graph == whole.graph


def test_an_unwritable_cache_only_warns(folder, request_name, monkeypatch):
    (folder / "file").write_text("")
    monkeypatch.setenv("COSTMODEL_CACHE_DIR", str(folder / "file" / "below"))
    with pytest.warns(CacheWarning, match="cannot be written"):
        assert load_trace(request_name).graph.param_count == 112


def test_off_means_off(folder, request_name, monkeypatch):
    monkeypatch.setenv("COSTMODEL_CACHE_DIR", "off")
    load_trace(request_name)
    assert cache.cache_dir() is None
    assert not (folder / "cache").exists()


def _write_many(name: str) -> None:
    entry = load_trace(name)
    for _ in range(20):
        cache.write("shared", entry, {})
        assert cache.read("shared") is not None


def test_concurrent_writers_and_readers_never_see_half_a_file(folder, request_name):
    load_trace(request_name)
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pool.map(_write_many, [request_name] * 3)
    assert cache.read("shared") is not None
    assert not list((folder / "cache").glob(".*.tmp"))


def test_a_cached_analysis_does_not_import_torch(folder):
    script = textwrap.dedent("""
        import sys
        from costmodel.cli import main
        status = main(["analyze", "resnet18", "--hw", sys.argv[1], "--batch", sys.argv[2], "--image-size", sys.argv[3]])
        loaded = sorted(m for m in ("torch", "sympy", "networkx", "timm", "torchvision") if m in sys.modules)
        print("LOADED", loaded, status)
    """)

    def run(*arguments: str) -> str:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments], capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1]

    first = subprocess.run(
        [sys.executable, "-m", "costmodel", "analyze", "resnet18", "--hw", "a100"], capture_output=True, text=True
    )
    assert first.returncode == 0, first.stderr
    assert run("t4", "16", "256") == "LOADED [] 0"
