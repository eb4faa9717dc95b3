"""``costmodel sweep MODEL... --hw A,B --batch 1,2..64``: every combination, in one tidy table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from costmodel.cli import arguments as common
from costmodel.engines import engine_names
from costmodel.execution import CACHES, DTYPES, LAYOUTS, WEIGHTS, Phase

__all__ = ["add", "run"]

#: File ending -> format, where --format does not say one.
_BY_ENDING = {".csv": "csv", ".json": "json", ".parquet": "parquet", ".md": "markdown", ".html": "html"}
#: Lines of a table on a terminal.
_TOP = 40


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "sweep",
        help="many models, machines, batches, sizes and dtypes in one table",
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="models; '{a,b}' are alternatives, '*' a pattern")
    parser.add_argument("--hw", type=common.words, required=True, metavar="NAME[,NAME...]|all", help="machines")
    parser.add_argument("--batch", metavar="N[,N..N]", help="samples a step, such as 1,2,4..256 (default: 1)")
    parser.add_argument("--image-size", metavar="S[,S...]", help="pixels, such as 160,192..288 or 224x320")
    parser.add_argument("--seq-len", metavar="L[,L...]", help="tokens, such as 128..1024")
    parser.add_argument("--context", metavar="N[,N...]", help="tokens in the cache, such as 512..8192 (--phase decode)")
    parser.add_argument(
        "--dtype",
        type=common.words,
        metavar="WORD[,WORD...]",
        help=f"of {', '.join(DTYPES)} (default: the model's own)",
    )
    parser.add_argument(
        "--weights", type=common.words, metavar="WORD[,WORD...]",
        help=f"how linear layers store theirs: {', '.join(WEIGHTS)} (default: as the dtype)",
    )  # fmt: skip
    parser.add_argument("--kv-dtype", choices=tuple(CACHES), help="of keys and values, with --mode serving")
    for name, known, default in (("mode", engine_names(), "eager"), ("layout", LAYOUTS, "nchw")):
        parser.add_argument(f"--{name}", type=common.words, default=(default,), metavar="WORD[,WORD...]",
                            help=f"of {', '.join(known)} (default: {default})")  # fmt: skip
    parser.add_argument(
        "--phase", type=common.words, default=("inference",), metavar="WORD[,WORD...]",
        help=f"of {', '.join(phase.value for phase in Phase)} (default: inference)",
    )  # fmt: skip
    common.add_training(parser)
    parser.add_argument("--host", default="usual", metavar="NAME", help="the computer that issues the work")
    parser.add_argument("--power-limit", type=common.watts, metavar="W", help="what a board may draw, in W")
    parser.add_argument("--no-cache", action="store_true", help="trace anew, and leave the cache of traces alone")
    parser.add_argument("--jobs", type=common.positive, default=1, metavar="N", help="processes (default: 1)")
    parser.add_argument(
        "--dask", metavar="ADDRESS", help="scheduler of a Dask cluster to run on (torch-costmodel[dask])"
    )
    parser.add_argument("--where", metavar="CONDITION", help="keep rows such as 'latency_ms < 5 and fits'")
    parser.add_argument(
        "--pareto",
        type=common.words,
        metavar="A,B",
        help="keep rows that none of their machine and batch beats in A and B",
    )
    parser.add_argument("--show", default="latency", metavar="COLUMN", help="quantity of the table (default: latency)")
    parser.add_argument("--top", type=int, metavar="K", help=f"lines of the table (default: {_TOP} here; 0: all)")
    parser.add_argument(
        "--figure",
        choices=("latency", "throughput", "flops", "pareto"),
        help="drawn to -o FILE.svg, .pdf or .png in place of the table",
    )
    parser.add_argument(
        "--format", choices=(*common.FORMATS, "parquet"), help="default: by the ending of FILE, or table"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE",
        help="write to FILE, whole or not at all; an interrupted sweep goes on from FILE.partial",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Plan, work out, choose and report."""
    from costmodel.report import check_writable
    from costmodel.report.model_figures import check_figure
    from costmodel.sweeps import sweep
    from costmodel.sweeps.columns import named

    output = None if arguments.output in (None, "-") else arguments.output
    format = _format(arguments, output)
    named(arguments.show)
    asked = common.training_words(arguments, Phase.TRAINING.value in arguments.phase)
    if arguments.figure:
        check_figure(arguments.figure, output)
    if output:
        check_writable(output)
    with _progress() as progress, _kept(output):
        found = sweep(
            arguments.models,
            hw=arguments.hw,
            **{name: getattr(arguments, name) for name in ("batch", "image_size", "seq_len", "context")},
            **{name: getattr(arguments, name) for name in ("dtype", "weights", "mode", "layout", "phase")},
            **{name: getattr(arguments, name) for name in ("jobs", "dask", "where", "pareto")},
            host=arguments.host,
            power_limit=arguments.power_limit,
            **({} if arguments.kv_dtype is None else {"kv_dtype": arguments.kv_dtype}),
            **{name: word for name, word in asked.items() if word not in (None, False)},
            use_cache=not arguments.no_cache,
            resume=output,
            progress=progress,
        )
    _write(found, arguments, format, output)
    if output:
        from costmodel.sweeps.journal import journal_path

        journal_path(output).unlink(missing_ok=True)
        failed = f", {len(found.failed)} of them without numbers" if found.failed else ""
        points = "1 point" if len(found) == 1 else f"{len(found):,} points"
        print(f"costmodel: {points} in {output}{failed}", file=sys.stderr)
    return 0


def _format(arguments: argparse.Namespace, output: str | None) -> str:
    """The format asked for, else the one of the file's name. Raises InputError for one that needs a file."""
    from costmodel.errors import InputError

    chosen = arguments.format or _BY_ENDING.get(Path(output or "").suffix.lower(), "table")
    if not output and chosen == "parquet":
        raise InputError("Parquet goes to a file\n  say -o FILE.parquet")
    return str(chosen)


def _write(found: Any, arguments: argparse.Namespace, format: str, output: str | None) -> None:
    from costmodel.report import Document
    from costmodel.report.output import put_bytes
    from costmodel.report.page import Page, emit
    from costmodel.sweeps.page import rows_table, swept_document, swept_json

    if arguments.figure:
        put_bytes(found.figure(arguments.figure).encoded(Path(str(output)).suffix[1:].lower()), str(output))
    elif format == "parquet":
        found.to_parquet(output)
    else:
        top = arguments.top if arguments.top is not None else _TOP if format == "table" and not output else None
        page = Page(
            document=lambda: swept_document(found, show=arguments.show, top=top),
            data=lambda: swept_json(found),
            table=lambda: Document("sweep", (rows_table(found),)),
        )
        emit(page, format, output)


@contextmanager
def _kept(output: str | None) -> Iterator[None]:
    """Says, where the sweep is interrupted, that what is done is not lost."""
    try:
        yield
    except KeyboardInterrupt:
        from costmodel.sweeps.journal import journal_path

        if output and journal_path(output).is_file():
            kept = journal_path(output)
            print(f"costmodel: finished points are in {kept}; the same command goes on with them", file=sys.stderr)
        raise


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    """A bar on a terminal's standard error; none where nobody watches."""
    if not common.watched():
        yield None
        return
    from tqdm import tqdm

    with tqdm(unit=" points", leave=False, dynamic_ncols=True) as bar:

        def show(done: int, count: int) -> None:
            bar.total = count
            bar.update(done - bar.n)

        yield show
