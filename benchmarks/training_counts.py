"""MACs of a training step, forward and backward, against torch's own counter on the meta device.

    python benchmarks/training_counts.py                        # torchvision's classifiers, 130 of timm, transformers
    python benchmarks/training_counts.py --only 'timm:vit*'     # some of them
    python benchmarks/training_counts.py --all --only 'timm:*'  # every architecture of timm

One line a model: MACs of the step here and by ``torch.utils.flop_counter.FlopCounterMode`` around forward, loss and
backward of the same module, and how many forward passes the backward is worth. Exit status 1 where any differ.

One formula of torch's counter is mended first. For the weight's gradient of a grouped convolution it multiplies all
input channels with all output channels, though each group meets its own alone: ``groups`` times the products that are
done (``conv_backward_flop`` in torch 2.13; a depthwise convolution of 960 channels counts 960 times). What it counts
unmended is printed beside. ``tests/formulas/test_backward_contraction.py`` counts the products one by one.
"""

from __future__ import annotations

import argparse
import csv
import fnmatch
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

#: Architectures of timm that are counted unless all are asked for: the first of every family, then the second, ...
TIMM_MODELS = 130
#: Words in the names of small variants, the smallest first: what is counted is the kind of operators, not their sizes.
_SMALL = ("atto", "femto", "pico", "nano", "xxs", "xxt", "tiny", "_ti", "_t", "mini", "xs", "small", "_s", "base", "_b")
BATCH = 2  # batch norm over one value has no variance


@dataclass
class Step:
    """One model: MACs of its step here, by torch's counter, and by the counter as it is."""

    model: str
    macs: int = 0
    macs_torch: int = 0
    macs_torch_unmended: int = 0
    macs_forward: int = 0
    ops: int = 0
    uncosted: str = ""
    failure: str = ""
    seconds: float = 0.0

    @property
    def is_exact(self) -> bool:
        return not self.failure and self.macs == self.macs_torch

    def __str__(self) -> str:
        if self.failure:
            return f"{self.model}: {self.failure}"
        backward = (self.macs - self.macs_forward) / self.macs_forward if self.macs_forward else float("nan")
        verdict = "equal" if self.is_exact else f"DIFFERS by {self.macs - self.macs_torch}"
        unmended = "" if self.macs_torch == self.macs_torch_unmended else f", unmended {self.macs_torch_unmended}"
        without = f", without a formula: {self.uncosted}" if self.uncosted else ""
        return (
            f"{self.model}: {self.macs} torch {self.macs_torch}{unmended} {verdict},"
            f" backward {backward:.3f} x forward{without}"
        )


def count(request: str) -> Step:
    """One model's step, both ways, at batch 2."""
    from costmodel.costing import cost_graph
    from costmodel.execution import NodePhase, Phase, Variant
    from costmodel.trace import trace

    step = Step(request)
    started = time.perf_counter()
    try:
        loaded = request_of(request)
        step.macs_torch, excess = macs_by_torch(loaded)
        step.macs_torch_unmended = step.macs_torch + excess
        variant = Variant(train_mode=True, phase=Phase.TRAINING)
        graph = trace(loaded, symbols=(), sizes={"batch": BATCH}, variant=variant)
        costs = cost_graph(graph)
        step.macs, step.ops = int(costs.total.macs), len(graph.nodes)
        forward = (i for i, node in enumerate(graph.nodes) if node.phase is NodePhase.FORWARD)
        step.macs_forward = sum(int(costs.of_node(i).macs) for i in forward)
        step.uncosted = " ".join(f"{op}({n})" for op, n in costs.uncosted.items())
    except Exception as error:  # a survey must name every failure, whatever it is
        step.failure = f"{type(error).__name__}: {error}".replace("\n", " | ")
    step.seconds = time.perf_counter() - started
    return step


# -- torch's counter -------------------------------------------------------------------------------


def macs_by_torch(loaded: Any) -> tuple[int, int]:
    """MACs of a step of the model, counted by torch; and by how many more the counter unmended has."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode, conv_backward_flop

    from costmodel.trace.forward import meta_copy

    excess = 0

    def backward_of_convolution(*args: Any, **named: Any) -> int:
        nonlocal excess
        groups, (_, by_weight, _) = args[9], args[10]
        counted = int(conv_backward_flop(*args, **named))
        if groups == 1 or not by_weight:
            return counted
        wgrad = int(conv_backward_flop(*args[:10], [False, True, False], **named))
        excess += wgrad - wgrad // groups
        return counted - (wgrad - wgrad // groups)

    backward_of_convolution._get_raw = True  # type: ignore[attr-defined] # it takes tensors, and not their shapes
    module = meta_copy(loaded.module, trains=True).train()
    args, kwargs = loaded.inputs({"batch": BATCH, **{k: v for k, v in loaded.sizes.items() if k != "batch"}})
    mended = {torch.ops.aten.convolution_backward: backward_of_convolution}
    with FlopCounterMode(display=False, custom_mapping=mended) as counter:
        loss_of(module(*args, **kwargs)).backward()
    return counter.get_total_flops() // 2, excess // 2


def loss_of(result: Any) -> Any:
    """The model's own loss where it has one, else the sum of what it puts out: losses have no MACs."""
    found = list(_outputs(result))
    return sum((each.sum() for each in found[1:]), start=found[0].sum())


def _outputs(result: Any) -> Iterator[Any]:
    import torch

    if isinstance(result, torch.Tensor):
        if result.is_floating_point():
            yield result
    elif isinstance(result, Mapping):
        if result.get("loss") is not None:
            yield result["loss"]
        else:
            yield from _outputs([value for name, value in result.items() if name != "past_key_values"])
    elif isinstance(result, (list, tuple)):
        for each in result:
            yield from _outputs(each)


# -- models ----------------------------------------------------------------------------------------


def request_of(request: str) -> Any:
    """The model that a name means: of transformers a small one, made here."""
    from costmodel.sources import resolve

    if request.startswith("transformers:"):
        return TRANSFORMERS[request.partition(":")[2]]()
    return resolve(request)


def _language_model(kind: str, labels: str = "", length: int = 24, **sizes: Any) -> Callable[[], Any]:
    """What makes a small model of transformers, by its class and configuration, with token ids and labels."""

    def make() -> Any:
        import torch
        import transformers

        from costmodel.sources import from_module

        model = getattr(transformers, kind)
        config = model.config_class(vocab_size=128, **sizes)
        tokens = torch.zeros(BATCH, length, dtype=torch.int64, device="meta")
        target = tokens if labels == "tokens" else tokens[:, 0]
        inputs = {"input_ids": tokens, **({"labels": target} if labels else {})}
        with torch.device("meta"):
            module = model(config)
        return from_module(module, inputs, name=f"transformers:{kind}")

    return make


_BERT = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
_LLAMA = {**_BERT, "num_key_value_heads": 2}
#: Small models of transformers by name.
TRANSFORMERS: dict[str, Callable[[], Any]] = {
    "bert": _language_model("BertForSequenceClassification", "classes", **_BERT),
    "roberta": _language_model("RobertaForMaskedLM", "tokens", **_BERT),
    "albert": _language_model("AlbertForMaskedLM", "tokens", **_BERT),
    "distilbert": _language_model("DistilBertForMaskedLM", "tokens", dim=64, n_layers=2, n_heads=4, hidden_dim=128),
    "gpt2": _language_model("GPT2LMHeadModel", "tokens", n_embd=64, n_layer=2, n_head=4),
    "llama": _language_model("LlamaForCausalLM", "tokens", **_LLAMA),
    "qwen2": _language_model("Qwen2ForCausalLM", "tokens", **_LLAMA),
    "opt": _language_model("OPTForCausalLM", "tokens", hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
                           ffn_dim=128, word_embed_proj_dim=64),
    "t5": _language_model("T5ForConditionalGeneration", "tokens", d_model=64, d_kv=16, d_ff=128, num_layers=2,
                          num_heads=4, decoder_start_token_id=0),
}  # fmt: skip


def requests(everything: bool) -> list[str]:
    """The models that are counted: torchvision's classifiers, timm's families in turn, transformers' small ones."""
    from costmodel.sources import known_models

    known = known_models(None)
    classifiers = [f"torchvision:{m.name}" for m in known if m.source == "torchvision" and "." not in (m.family or "")]
    families: dict[str, list[str]] = {}
    for model in known:
        if model.source == "timm":
            families.setdefault(model.family or "", []).append(model.name)
    for names in families.values():
        names.sort(
            key=lambda name: (next((i for i, w in enumerate(_SMALL) if w in name), len(_SMALL)), len(name), name)
        )
    rounds = [
        names[i] for i in range(max(map(len, families.values()))) for names in families.values() if i < len(names)
    ]
    timm = [f"timm:{name}" for name in (rounds if everything else rounds[:TIMM_MODELS])]
    return [*classifiers, *timm, *(f"transformers:{name}" for name in TRANSFORMERS)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", help="a shell pattern of names, such as 'timm:*resnet*'")
    parser.add_argument("--all", action="store_true", help="every architecture of timm")
    parser.add_argument("-o", "--output", help="all results as CSV")
    arguments = parser.parse_args()
    steps = []
    for request in requests(arguments.all):
        if fnmatch.fnmatch(request, arguments.only):
            steps.append(count(request))
            print(steps[-1], flush=True)
    if arguments.output:
        with open(arguments.output, "w", newline="") as file:
            writer = csv.DictWriter(file, [f.name for f in fields(Step)])
            writer.writeheader()
            writer.writerows(map(asdict, steps))
    failures = [s.model for s in steps if s.failure]
    differing = [s.model for s in steps if not s.failure and not s.is_exact]
    uncosted = [s.model for s in steps if s.uncosted]
    print(f"{len(steps)} models: {len(differing)} differ, {len(failures)} fail, {len(uncosted)} with operators unknown")
    return 1 if failures or differing or uncosted else 0


if __name__ == "__main__":
    sys.exit(main())
