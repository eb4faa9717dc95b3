"""The examples of a gate: every command of the workflow, of the hook and of their page runs, and does its work."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from costmodel.budgets import read_baseline

pytest.importorskip("torch")
yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
GATE = ROOT / "examples" / "gate"


@pytest.fixture
def project(tmp_path) -> Path:
    """A copy of the example; costmodel is found as a command, and its pytest plugin as if it were installed."""
    copy = tmp_path / "project"
    shutil.copytree(GATE, copy)
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "costmodel"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m costmodel "$@"\n')
    python = tmp_path / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    command.chmod(0o755)
    python.chmod(0o755)
    done = run(page_command(copy), copy)  # what the time and memory models say today
    assert done.returncode == 0, done.stderr
    return copy


def page_command(project: Path) -> str:
    """The command by which the example's page says that costs.json was written."""
    found = re.search(r"```console\n(.*?)\n```", (project / "README.md").read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def run(command: str, project: Path) -> subprocess.CompletedProcess[str]:
    plugins = "" if _is_installed() else "costmodel.pytest_plugin"
    environment = {
        **os.environ, "PATH": f"{project.parent / 'bin'}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
        "GITHUB_STEP_SUMMARY": str(project / "summary.md"), "PYTEST_PLUGINS": plugins,
    }  # fmt: skip
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", command], cwd=project, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def _is_installed() -> bool:
    from importlib.metadata import entry_points

    return any(point.value == "costmodel.pytest_plugin" for point in entry_points(group="pytest11"))


def steps(project: Path) -> dict[str, str]:
    workflow = yaml.safe_load((project / ".github" / "workflows" / "costs.yml").read_text())
    return {step["name"]: step["run"] for step in workflow["jobs"]["costs"]["steps"] if "run" in step}


def grow(project: Path) -> None:
    net = project / "net.py"
    net.write_text(net.read_text().replace("inner: int = 64", "inner: int = 68"))


def test_the_workflow_passes_and_fails_on_a_network_that_grew(project):
    commands = steps(project)
    install = commands.pop("install")
    assert install == "pip install -r requirements.txt" and (project / "requirements.txt").is_file()
    for name, command in commands.items():
        done = run(command, project)
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
    assert "limits kept" in (project / "summary.md").read_text()
    grow(project)
    assert run(commands["no growth"], project).returncode == 1
    assert "blocks.0.conv1" in (project / "summary.md").read_text()
    failed = run(commands["tests"], project)
    assert failed.returncode == 1 and "blocks.0.conv1" in failed.stdout


def test_the_hook_passes_and_refuses_a_network_that_grew(project):
    hooks = yaml.safe_load((project / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    hook = next(hook for hook in hooks if hook["id"] == "costs")
    assert hook["pass_filenames"] is False
    assert re.search(hook["files"], "net.py") and re.search(hook["files"], "costs.json")
    assert run(hook["entry"], project).returncode == 0
    grow(project)
    refused = run(hook["entry"], project)
    assert refused.returncode == 1 and "blocks.0.conv1" in refused.stdout


def test_the_command_of_the_page_writes_the_counts_of_the_file_that_is_there(project):
    there, written = (read_baseline(folder / "costs.json") for folder in (GATE, project))
    assert list(there.entries) == list(written.entries)
    for before, now in zip(there.entries.values(), written.entries.values(), strict=True):
        assert [layer.work for layer in before.layers] == [layer.work for layer in now.layers]
        assert [before.totals[name] for name in ("flops", "macs", "params")] == [
            now.totals[name] for name in ("flops", "macs", "params")
        ]
