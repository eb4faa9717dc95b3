"""What people expect of a command line: examples that run, errors in a line, completion, colours, machines by habit."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import subprocess

import pytest

from costmodel.cli import _parser, main
from costmodel.cli.parser import EXAMPLES
from costmodel.errors import UnknownHardwareError
from costmodel.hardware import load
from costmodel.hardware.instances import instances
from costmodel.report.as_terminal import TerminalStyle


def said(capsys, *arguments: str) -> tuple[int, str, str]:
    try:
        status = main(list(arguments))
    except SystemExit as stopped:
        status = int(stopped.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


def test_every_command_has_examples_in_its_help_and_they_parse():
    parser = _parser()
    (verbs,) = (action for action in parser._actions if hasattr(action, "choices") and action.choices)
    assert set(verbs.choices) <= set(EXAMPLES)
    for verb in verbs.choices:
        assert EXAMPLES[verb][0][0] in verbs.choices[verb].format_help()
        for command, _ in EXAMPLES[verb]:
            program, *arguments = shlex.split(command.partition(" >")[0])
            assert program == "costmodel"
            parser.parse_args(arguments)  # exits where it does not parse
    for verb in ("analyze", "sweep", "choose"):
        assert EXAMPLES[verb][0][0] in parser.format_help()
    assert re.search(r"\n    completion +a script", parser.format_help())
    for verb in ("check", "choose"):  # what a script asks is said below the examples
        assert "exit status: 0" in verbs.choices[verb].format_help().partition("examples:")[2]


@pytest.mark.parametrize(
    ("arguments", "first", "hints"),
    [
        (("analyze", "resnet50"), "costmodel: the following arguments are required: --hw", "for example: costmodel"),
        (("analyze", "resnet50", "--hw", "a100", "--bach", "3"), "unrecognized arguments: --bach", "mean --batch?"),
        (("analyze", "resnet50", "--hw", "a100", "--dtype", "fp61"), "invalid choice: 'fp61'", "did you mean fp16?"),
        (("analyze", "resnet50", "--hw", "a100", "--batch", "1,8"), "one whole number, not '1,8'; `costmodel", ""),
        (("choose", "resnet50", "--max-latency", "5"), "--max-latency: must be a time with its unit", "for example: "),
        (("analize", "resnet50"), "invalid choice: 'analize'", "did you mean analyze?"),
    ],
)
def test_a_usage_error_is_one_line_and_a_hint(capsys, arguments, first, hints):
    status, out, err = said(capsys, *arguments)
    assert (status, out) == (2, "")
    assert first in err.splitlines()[0] and "usage:" not in err
    assert hints in err and "--help` says what it takes" in err


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_the_commands(capsys, shell):
    status, out, _ = said(capsys, "completion", shell)
    assert status == 0 and "analyze" in out and "--hw" in out
    if shell == "bash" and shutil.which("bash"):
        subprocess.run(["bash", "-n"], input=out, text=True, check=True)


def test_names_that_begin_so_come_first(capsys):
    _, _, err = said(capsys, "analyze", "vit_small", "--hw", "a100")
    assert "did you mean vit_small_patch" in err


def test_cpu_says_what_to_do_and_local_finds_the_gpu(capsys, monkeypatch, tmp_path):
    _, _, err = said(capsys, "analyze", "resnet18", "--hw", "cpu")
    assert "costmodel calibrate" in err
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnknownHardwareError, match="no GPU of this machine"):
        load("local")
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA GeForce RTX 3090'\necho Tesla T4\n")
    tool.chmod(0o755)
    assert load("local").name == "rtx3090"
    tool.unlink()
    tool = tmp_path / "rocm-smi"
    tool.write_text("#!/bin/sh\necho 'device,Card series,Card model'\necho 'card0,AMD Instinct MI100,0x738c'\n")
    tool.chmod(0o755)
    assert load("local").name == "mi100"


def test_an_instance_of_a_cloud_is_one_of_its_cards_and_says_so():
    assert load("p4d.24xlarge").name == "a100-sxm-40gb"
    assert "one of the 8 cards of p4d.24xlarge" in load("P4D.24xlarge").title
    assert "the card of g4dn.xlarge" in load("g4dn.xlarge").title
    for instance in instances().values():
        assert load(instance.machine).name == instance.machine and instance.cards > 0


def test_colours_are_for_terminals_that_have_them(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert TerminalStyle.of(Terminal()).colour and not TerminalStyle.of(io.StringIO()).colour
    monkeypatch.setenv("NO_COLOR", "1")
    assert not TerminalStyle.of(Terminal()).colour
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not TerminalStyle.of(Terminal()).colour


def test_json_on_stdout_is_one_value_whatever_else_is_said(capsys):
    for arguments in (("a100",), ("a100,t4",), ("a100,t4", "--phase", "training"), ("a100", "--mode", "eager,compile")):
        hw, *others = arguments
        status, out, _ = said(capsys, "analyze", "resnet18", "--hw", hw, *others, "--format", "json")
        assert status == 0
        json.loads(out)


def test_pages_end_with_what_is_not_modelled(capsys):
    _, out, _ = said(capsys, "analyze", "resnet18", "--hw", "a100")
    assert "not modelled: loading of data" in out.split("Conventions")[-1]


def test_a_dumb_terminal_gets_no_line_that_must_be_taken_away(capsys, monkeypatch):
    from costmodel.cli import arguments

    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    for term, shown in (("xterm", True), ("dumb", False)):
        monkeypatch.setenv("TERM", term)
        arguments.progress("net")(7)
        arguments.clear_progress()
        assert ("7 operators" in capsys.readouterr().err) == shown
