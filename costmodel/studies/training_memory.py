"""Chapters on the memory of training: what sets the batch, what checkpoints cost and save, what optimizers hold."""

from __future__ import annotations

from typing import Any

from costmodel.analysis import Analysis
from costmodel.report.columns import number_column, quantity_column, share_column, text_column
from costmodel.report.document import Document, Figure, Paragraph, Table
from costmodel.report.figures import bars
from costmodel.studies.bench import Bench
from costmodel.studies.training_steps import NETWORKS, parts, trained
from costmodel.studies.words import listed, percent, seconds, times

__all__ = ["checkpoints", "memory", "memory_figure", "optimizers"]

OPTIMIZERS = ("sgd", "momentum", "adamw")
_GIB = 2**30
# -- memory --------------------------------------------------------------------------------------

_KINDS = ("saved for backward", "optimizer state", "parameters", "gradients")


def _kinds(analysis: Analysis) -> dict[str, float]:
    """GiB at the peak by what lies there."""
    found = dict(analysis.memory.moment.by_kind)
    named = {kind: found.pop(kind, 0.0) / _GIB for kind in _KINDS}
    return {kind: gib for kind, gib in {**named, "everything else": sum(found.values()) / _GIB}.items() if gib}


def memory_figure(bench: Bench) -> str:
    rows = {f"{name}, batch {net.batch}": _kinds(trained(bench, name)) for name, net in NETWORKS.items()}
    return bars(rows, "GiB", "Memory at the peak of a training step, autocast fp16", decimals=1)


def memory(bench: Bench) -> Document:
    rows = [_memory_row(bench, name) for name in NETWORKS]
    by_name = {row["name"]: row for row in rows}
    resnet, mobile = by_name["ResNet-50"], by_name["MobileNet V2"]
    by_flops = sorted(by_name, key=lambda name: by_name[name]["flops"])
    by_memory = sorted(by_name, key=lambda name: by_name[name]["a_sample"])
    text = (
        "What the forward pass puts out has to stay until the backward pass has used it: that grows with the batch, "
        "weights, gradients and states do not. A sample of MobileNet V2 keeps "
        f"{mobile['a_sample'] * _GIB / 1e6:.0f} MB where one of ResNet-50 keeps "
        f"{resnet['a_sample'] * _GIB / 1e6:.0f} MB, although ResNet-50's has "
        f"{times(resnet['flops'] / mobile['flops'])} the FLOPs: the largest batches of the two are "
        f"{mobile['most_a100']:,} and {resnet['most_a100']:,} on the A100. From the fewest FLOPs a sample to the most "
        f"the networks stand {listed(by_flops)}; from the least memory a sample to the most {listed(by_memory)}."
    )
    table = Table(
        title="Memory of a step, autocast fp16, and the largest batch",
        columns=(
            text_column("name", "network"),
            number_column("flops", "FLOPs a sample", "GFLOP", decimals=1),
            number_column("fixed", "weights, gradients, states", "GiB", decimals=2),
            number_column("a_sample", "a sample more", "GiB", decimals=3),
            number_column("peak", "peak at this batch", "GiB", decimals=2),
            number_column("most_a100", "most, A100 80 GB", decimals=0),
            number_column("most_rtx3090", "most, RTX 3090 24 GB", decimals=0),
            number_column("most_fp32", "most in fp32, A100", decimals=0),
        ),
        rows=tuple(rows),
    )
    figure = Figure("figures/training_memory.svg", "What lies in memory at the peak of a step, on an A100")
    return Document("Activation memory sets the batch", (Paragraph(text), figure, table))


def _memory_row(bench: Bench, name: str) -> dict[str, Any]:
    batch = NETWORKS[name].batch
    one, twice = trained(bench, name), trained(bench, name, batch=2 * batch)
    a_sample = (twice.memory.peak_bytes - one.memory.peak_bytes) / batch
    return {
        "name": name,
        "flops": one.totals.flops / batch / 1e9,
        "fixed": (one.memory.peak_bytes - batch * a_sample) / _GIB,
        "a_sample": a_sample / _GIB,
        "peak": one.memory.allocated_bytes / _GIB,
        "most_a100": one.max_batch(),
        "most_rtx3090": trained(bench, name, "rtx3090").max_batch(),
        "most_fp32": trained(bench, name, dtype="fp32").max_batch(),
    }


# -- checkpoints and optimizers ------------------------------------------------------------------


def checkpoints(bench: Bench) -> Document:
    rows: list[dict[str, Any]] = []
    for name, net in NETWORKS.items():
        plain, again = trained(bench, name), trained(bench, name, checkpoint="blocks")
        rows.append(
            {"name": name, "batch": net.batch, "flops": again.totals.flops / plain.totals.flops - 1,
             "time": again.latency / plain.latency - 1,
             "peak": plain.memory.allocated_bytes / _GIB, "then": again.memory.allocated_bytes / _GIB,
             "most": plain.max_batch(), "most_then": again.max_batch()}
        )  # fmt: skip
    by_name = {row["name"]: row for row in rows}
    vit, resnet = by_name["ViT-B/16"], by_name["ResNet-50"]
    text = (
        "torch.utils.checkpoint around each repeated block keeps the block's input alone and runs the block once more "
        f"in the backward pass. ViT-B/16 then computes {percent(vit['flops'])} more FLOPs, takes "
        f"{percent(vit['time'])} longer and needs {percent(1 - vit['then'] / vit['peak'])} less memory; ResNet-50 pays "
        f"{percent(resnet['time'])} for {percent(1 - resnet['then'] / resnet['peak'])}. A third more FLOPs would be "
        "the rule, a forward pass on three; but stems and heads are no blocks, and PyTorch stops running a block again "
        "once it has all that was kept: the last product of a block of ViT is not among it. In time the second "
        "forward pass is as dear as the first, which is more or less than a third of the step, as above."
    )
    table = Table(
        title="Checkpointed blocks on an A100",
        columns=(
            text_column("name", "network"),
            number_column("batch", "batch", decimals=0),
            share_column("flops", "more FLOPs"),
            share_column("time", "more time"),
            number_column("peak", "peak", "GiB", decimals=2),
            number_column("then", "peak then", "GiB", decimals=2),
            number_column("most", "most", decimals=0),
            number_column("most_then", "most then", decimals=0),
        ),
        rows=tuple(rows),
    )
    return Document("What checkpoints cost and save", (Paragraph(text), table))


def optimizers(bench: Bench) -> Document:
    rows: list[dict[str, Any]] = []
    for name in ("ResNet-50", "ViT-B/16", "BERT-base"):
        for optimizer in OPTIMIZERS:
            for fused in (False, True):
                step = trained(bench, name, optimizer=optimizer, fused_optimizer=fused)
                part = parts(step)["optimizer"]
                state = sum(s.nbytes for s in step.bound.storages if s.role.value == "state")
                rows.append(
                    {"name": name, "optimizer": str(step.execution.optimizer), "kernels": part.kernels,
                     "seconds": part.latency_s, "share": part.share, "state": state / _GIB}
                )  # fmt: skip
    table = Table(
        title="The optimizer's part of the step on an A100",
        columns=(
            text_column("name", "network"),
            text_column("optimizer", "optimizer"),
            number_column("kernels", "kernels", decimals=0),
            quantity_column("seconds", "time", "s", [row["seconds"] for row in rows], decimals=2),
            share_column("share", "of the step"),
            number_column("state", "state", "GiB", decimals=2),
        ),
        rows=tuple(rows),
    )
    taken = {(row["name"], row["optimizer"]): row["seconds"] for row in rows}
    plain, fused_s = taken["BERT-base", "adamw"], taken["BERT-base", "adamw (fused)"]
    calls = [row for row in trained(bench, "BERT-base").rows() if row.op.startswith("aten._foreach_") and row.kernels]
    text = (
        "By default torch.optim calls one operator after the other for the lists of all weights, for AdamW "
        f"{len(calls)}, each of which reads and writes whole lists. The fused one reads and writes each tensor once: "
        f"BERT-base's step spends {seconds(plain)} in the one and {seconds(fused_s)} in the other. Under autocast in "
        "fp16 a GradScaler goes through all gradients before, and the host waits for its verdict; a fused optimizer is "
        "told on the device."
    )
    return Document("Optimizers", (Paragraph(text), table))
