"""Arguments that several commands share, and how their texts become values."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from costmodel.engines import engine_names, engine_of
from costmodel.errors import InputError
from costmodel.execution import ALGORITHMS, CACHES, CHECKPOINTS, DTYPES, LAYOUTS, WEIGHTS, Phase, dtype_word

__all__ = [
    "add_execution",
    "add_model",
    "add_output",
    "add_phase",
    "add_run",
    "add_sizes",
    "answers",
    "check_distinct",
    "conditions",
    "positive",
    "progress",
    "running",
    "shape",
    "words",
]

FORMATS = ("table", "markdown", "json", "csv", "html", "latex")


def check_distinct(what: str, names: Sequence[str]) -> None:
    """Raise InputError where one of ``names``, each a ``what``, is asked for twice."""
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise InputError(f"the {what} {twice} is asked for twice")


def positive(text: str) -> int:
    """A whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1 and re.fullmatch(r"\d+([,.]+\d+)+", text):
        raise argparse.ArgumentTypeError(f"must be one whole number, not {text!r}; `costmodel sweep` takes several")
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text!r}")
    return value


def seconds(text: str) -> float:
    """``10ms`` -> 0.01 s."""
    from costmodel.units import parse_quantity

    try:
        return parse_quantity(text, "s")
    except InputError as error:
        raise argparse.ArgumentTypeError(f"must be a time with its unit such as 10ms, not {text!r}") from error


def shape(text: str) -> tuple[int, ...]:
    """``3,224,224`` -> (3, 224, 224)."""
    try:
        sizes = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise argparse.ArgumentTypeError(f"must be sizes such as 3,224,224 (the batch left out), not {text!r}")
    return sizes


def answer(text: str) -> tuple[str, bool | int | float]:
    """``net.py:12=false`` -> ("net.py:12", False); numbers too."""
    name, _, said = text.rpartition("=")
    known = {"true": True, "yes": True, "false": False, "no": False}
    if name and said.lower() in known:
        return name, known[said.lower()]
    for number in (int, float):
        try:
            if name:
                return name, number(said)
        except ValueError:
            continue
    raise argparse.ArgumentTypeError(
        f"must be a line and true, false or a number, such as net.py:12=false, not {text!r}"
    )


def watts(text: str) -> float:
    """A power in W, with or without the unit."""
    try:
        value = float(text.strip().removesuffix("W"))
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of watts above 0, such as 200, not {text!r}")
    return value


def words(text: str) -> tuple[str, ...]:
    """``a,b`` -> ("a", "b")."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def add_model(parser: argparse.ArgumentParser) -> None:
    """MODEL, and the sizes of its inputs."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="resnet50, timm:NAME, torchvision:NAME, hf:TYPE, hf:config.json, path/to/file.py:factory, model.pt2; "
        "'NAME(width=64)' builds it with arguments",
    )
    add_sizes(parser)


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """The sizes of inputs, and whether traces are kept."""
    parser.add_argument(
        "--image-size", type=positive, metavar="S", help="height and width in pixels (default: the model's own)"
    )
    parser.add_argument(
        "--input-shape", type=shape, metavar="C,H,W", help="shape of the first input, without the batch"
    )
    parser.add_argument("--seq-len", type=positive, metavar="L", help="sequence length in tokens")
    parser.add_argument(
        "--context", type=positive, metavar="N", help="tokens of each sequence in the cache (--phase decode)"
    )
    parser.add_argument(
        "--assume",
        type=answer,
        action="append",
        metavar="LINE=ANSWER",
        help="answer a question about values that are not known before a run, such as net.py:12=false; repeatable",
    )
    parser.add_argument("--no-cache", action="store_true", help="trace anew, and leave the cache of traces alone")


def add_execution(parser: argparse.ArgumentParser, *, several_modes: bool = False) -> None:
    """The conditions of a run."""
    parser.add_argument(
        "--batch", type=positive, metavar="N", help="samples a step (default: that of the model's own inputs, else 1)"
    )
    parser.add_argument(
        "--dtype",
        type=dtype_word,
        choices=DTYPES,
        help="amp_* is torch.autocast (default: what the model holds its weights in, fp32)",
    )
    parser.add_argument(
        "--weights", choices=WEIGHTS,
        help="how linear layers in the blocks store theirs (default: as a configuration says, else as the dtype)",
    )  # fmt: skip
    parser.add_argument(
        "--kv-dtype",
        choices=tuple(CACHES),
        help="what keys and values are kept in, with --mode serving (default: --dtype)",
    )
    parser.add_argument("--layout", choices=LAYOUTS, default="nchw", help="memory format of images (default: nchw)")
    modes = ", ".join(f"{name}: {engine_of(name).help}" for name in engine_names())
    if several_modes:
        parser.add_argument("--mode", type=words, default=("eager",), metavar="WORD[,WORD...]",
                            help=f"{modes} (default: eager)")  # fmt: skip
    else:
        parser.add_argument("--mode", choices=engine_names(), default="eager", help=f"{modes} (default: eager)")
    parser.add_argument(
        "--host", default="usual", metavar="NAME",
        help="the computer that issues the work, or its file (default: the machine's usual one; costmodel hw list)",
    )  # fmt: skip
    parser.add_argument(
        "--power-limit", type=watts, metavar="W", help="power that the board may draw, in W (default: its own limit)"
    )


def add_phase(parser: argparse.ArgumentParser) -> None:
    """What the run is for, and what a training step does with its gradients."""
    parser.add_argument(
        "--phase", choices=[phase.value for phase in Phase], default=Phase.INFERENCE.value,
        help="training: forward pass, loss, backward pass and optimizer of one step; prefill, decode: a prompt, one "
        "step of writing text with its cache (hf: models; default: inference)",
    )  # fmt: skip
    add_training(parser)


def add_training(parser: argparse.ArgumentParser) -> None:
    """What a training step does with its gradients."""
    training = parser.add_argument_group("training", "options of --phase training")
    training.add_argument(
        "--optimizer", choices=ALGORITHMS,
        help="torch.optim's SGD, with momentum of 0.9, with Nesterov's; Adam, AdamW; bitsandbytes' 8-bit Adam; "
        "SparseAdam for sparse gradients and Adam for the others; none (default: momentum)",
    )  # fmt: skip
    training.add_argument(
        "--fused-optimizer", action="store_true", help="fused=True: one kernel for all (default: foreach, as torch has)"
    )
    yes_or_no = argparse.BooleanOptionalAction
    training.add_argument("--weight-decay", action=yes_or_no, help="(default: as the optimizer's class has it)")
    training.add_argument("--grad-scaler", action=yes_or_no, help="GradScaler scales the loss (default: with amp_fp16)")
    training.add_argument(
        "--checkpoint", choices=CHECKPOINTS, help="blocks: those that the model repeats run again in the backward pass"
    )
    training.add_argument(
        "--trainable", metavar="WORD",
        help="all, head (the last layer alone), or lora:RANK (products of two matrices beside frozen linear layers)",
    )  # fmt: skip


def add_run(parser: argparse.ArgumentParser) -> None:
    """Whether the model really runs, and on what."""
    parser.add_argument(
        "--execute",
        action="store_true",
        help="run one forward pass on this machine's CPU, where values decide how much is computed",
    )
    parser.add_argument(
        "--input", metavar="FILE", help="what --execute runs on: a .pt of torch.save, or a picture (default: random)"
    )


def running(arguments: argparse.Namespace) -> dict[str, Any]:
    """What :func:`add_run` asked for, as :func:`costmodel.analyze` takes it. Raises InputError for --input alone."""
    if arguments.input and not arguments.execute:
        raise InputError("--input is what a run takes\n  say --execute with it; a static analysis knows no values")
    return {"execute": arguments.execute, "inputs": arguments.input}


def conditions(arguments: argparse.Namespace) -> dict[str, Any]:
    """What :func:`add_sizes` and :func:`add_execution` asked for, as :func:`costmodel.analyze` takes it."""
    names = (
        "batch",
        "image_size",
        "input_shape",
        "seq_len",
        "context",
        "dtype",
        "weights",
        "kv_dtype",
        "layout",
        "mode",
        "host",
        "power_limit",
    )
    return {
        **{name: getattr(arguments, name) for name in names},
        **trained(arguments),
        "assume": answers(arguments),
    }


def trained(arguments: argparse.Namespace) -> dict[str, Any]:
    """What :func:`add_phase` asked for, as :func:`costmodel.analyze` takes it; nothing where the verb has no phases.

    Raises InputError for an option of training in another phase.
    """
    if not hasattr(arguments, "phase"):
        return {}
    return {"phase": arguments.phase, **training_words(arguments, arguments.phase == Phase.TRAINING.value)}


def training_words(arguments: argparse.Namespace, is_training: bool) -> dict[str, Any]:
    """What :func:`add_training` asked for. Raises InputError for one of its options in another phase."""
    names = ("optimizer", "fused_optimizer", "weight_decay", "grad_scaler", "checkpoint", "trainable")
    said = {name: getattr(arguments, name) for name in names}
    given = [name for name, value in said.items() if value not in (None, False)]
    if given and not is_training:
        option = f"--{given[0].replace('_', '-')}"
        raise InputError(f"{option} is an option of a training step\n  say --phase training with it")
    return said


def answers(arguments: argparse.Namespace) -> dict[str, bool | int | float]:
    """What ``--assume`` said, by line."""
    return dict(arguments.assume or ())


def add_output(parser: argparse.ArgumentParser, formats: Sequence[str] = FORMATS) -> None:
    """Where the report goes."""
    parser.add_argument("--format", choices=formats, default="table", help="format of the report (default: table)")
    parser.add_argument("-o", "--output", metavar="FILE", help="write the report to FILE, whole or not at all")


def progress(what: str) -> Callable[[int], None]:
    """Shows on a terminal's standard error how far a long trace has come; silent when nobody watches."""
    started = time.monotonic()

    def show(operators: int) -> None:
        if watched():
            seconds = time.monotonic() - started
            print(
                f"\r\x1b[Ktracing {what}: {operators} operators, {seconds:.0f} s", end="", file=sys.stderr, flush=True
            )

    return show


def watched() -> bool:
    """Whether somebody looks at standard error, on a terminal that can take a line away again."""
    return sys.stderr.isatty() and os.environ.get("TERM", "") != "dumb"


def clear_progress() -> None:
    """Take the progress line away again."""
    if watched():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
