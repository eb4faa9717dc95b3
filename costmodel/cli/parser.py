"""The parser of the command line: usage errors in one line with a hint, and examples under every help."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn

__all__ = ["EXAMPLES", "Parser", "add_examples", "first_steps", "wide_help"]

#: Command -> what one types and what one gets; each is run by the tests.
EXAMPLES: Mapping[str, Sequence[tuple[str, str]]] = {
    "analyze": (
        ("costmodel analyze resnet50 --hw a100", "cost and time of a step at batch 1"),
        ("costmodel analyze vit_small_patch16_224 --hw t4,l4 --batch 64 --dtype amp_fp16", "on two machines"),
        ("costmodel analyze resnet50 --hw rtx3090 --batch 64 --phase training", "a training step, and whether it fits"),
        ("costmodel analyze resnet18 --hw a100 --by module --format html -o r18.html", "a page to look at"),
    ),
    "explain": (
        ("costmodel explain mobilenet_v2 --hw a100 --batch 64", "from FLOPs to seconds, cause by cause"),
        ("costmodel explain resnet50 --hw a100 --mode compile", "what is lost when torch.compile has done its part"),
    ),
    "compare": (("costmodel compare resnet50 mobilenet_v2 --hw a100,t4", "which is faster where, and why"),),
    "models": (("costmodel models 'resnet*'", "names that begin so"),),
    "hw": (
        ("costmodel hw list", "all machines with their headline figures"),
        ("costmodel hw show a100", "every figure of one, with its source"),
    ),
    "formula": (("costmodel formula resnet18 --hw a100", "its FLOPs and bytes in batch and image size"),),
    "measure": (("costmodel measure resnet18 --batch 1", "timings of this machine, operator by operator"),),
    "calibrate": (("costmodel calibrate -o this-cpu.toml", "a profile of this machine's CPU"),),
    "validate": (("costmodel validate timings.csv", "predictions against your measurements"),),
    "report": (("costmodel report resnet50_a100", "one of the studies, as a page"),),
    "completion": (
        ("costmodel completion bash > ~/.local/share/bash-completion/completions/costmodel", "for new bash shells"),
    ),
    "sweep": (
        ("costmodel sweep resnet18 resnet50 --hw a100,t4 --batch 1,8,64", "every combination in one table"),
        (
            "costmodel sweep resnet18 resnet50 --hw a100 --batch 64 --pareto macs,latency",
            "those that none beats in both",
        ),
        ("costmodel sweep 'timm:resnet*' --hw all --batch 1,32 --jobs 4 -o resnets.csv", "many, in four processes"),
        (
            "costmodel sweep resnet50 --hw t4 --image-size 160,192..288 --where 'latency_ms < 5 and fits'",
            "within limits",
        ),
    ),
    "reconcile": (("costmodel reconcile resnet50", "what fvcore, thop, ptflops, ... print for it, and why"),),
    "choose": (
        ("costmodel choose resnet50 --max-latency 20ms", "the best batch of each machine within the limit"),
        ("costmodel choose resnet50 --min-throughput 2000 --confidence 90%", "samples a second that nine in ten keep"),
        (
            "costmodel choose resnet50 --max-latency 50ms --prices prices.toml",
            "by cost: [per_hour] t4 = 0.35, a100 = 3.67",
        ),
    ),
    "check": (
        ("costmodel check resnet50 --hw a100 --budget latency=10ms,macs=5G", "exit status 1 where a budget is broken"),
        ("costmodel check net.py:make --hw t4 --baseline costs.json --write-baseline", "once, and to let costs grow"),
        ("costmodel check --baseline costs.json --max-regression 2%", "in CI: everything that the file holds"),
    ),
}


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line and a hint, with exit status 2."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and what to type instead."""
        message = re.sub(r"\(choose from (.*)\)", r"(there are: \1)", message).replace("argument ", "", 1)
        lines = [f"costmodel: {message}"]
        if near := self._near(message):
            lines.append(f"  did you mean {near}?")
        verb = self.prog.partition(" ")[2]
        lines += [f"  for example: {command}" for command, _ in EXAMPLES.get(verb.partition(" ")[0], ())[:1]]
        lines.append(f"  `{self.prog} --help` says what it takes")
        print("\n".join(lines), file=sys.stderr)
        self.exit(2)

    def _near(self, message: str) -> str:
        """The option or word that was meant, where one is nearly spelled so."""
        unknown = re.search(r"unrecognized arguments: (--[\w-]+)", message)
        if unknown:
            known = [option for action in _all_actions(self) for option in action.option_strings]
            if unknown[1] in known:
                return ""  # another command's
            return next(iter(difflib.get_close_matches(unknown[1], known, n=1)), "")
        chosen = re.search(r"invalid choice: '([^']*)' \(there are: (.*)\)", message)
        if not chosen:
            return ""
        words = [word.strip("' ") for word in chosen[2].split(",")]
        return next(iter(difflib.get_close_matches(chosen[1], words, n=1)), "")


def _all_actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The actions of a parser and of the commands below it."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _all_actions(below)


def first_steps() -> str:
    """What stands under the help of the whole program: one example each of the commands that most begin with."""
    shown = (EXAMPLES[verb][0] for verb in ("analyze", "explain", "compare", "sweep", "choose"))
    lines = [f"  {typed}\n      {got}" for typed, got in shown]
    return "\n".join(["examples:", *lines, "", "`costmodel COMMAND --help` says what each takes, with more examples"])


def wide_help(prog: str) -> argparse.RawDescriptionHelpFormatter:
    """Texts as they are broken here, and room for the longest command beside what it does."""
    formatter = argparse.RawDescriptionHelpFormatter(prog)
    formatter._action_max_length = 14  # argparse forgets that commands are indented
    return formatter


def add_examples(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Put each command's examples under its help, before what it says there itself."""
    for name, parser in verbs.choices.items():
        examples = EXAMPLES.get(name, ())
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        own = ["", parser.epilog] if parser.epilog else []
        lines = ["examples:", *(f"  {typed}\n      {got}" for typed, got in examples), *own]
        parser.epilog = "\n".join(lines)
