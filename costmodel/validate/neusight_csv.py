"""NeuSight's end-to-end transformers: ``device,model,mode,seqlen,batch,variant,num_layer,e2e_ms,...``.

Models are built by transformers from the configurations beside this file. Sizes: BERT-large (Devlin et al. 2019),
GPT-2 large (Radford et al. 2019), GPT-3 2.7B and XL (Brown et al. 2020, table 2.1), OPT 1.3B (Zhang et al. 2022).
The table's XL has 24 heads of 128 but a width of 2048; the rows here take as long as those of 2.7B, so the width is
24 * 128 = 3072 (2.7 G parameters in 24 layers against 2.5 G). Language models end in their head, BERT does not: the
file does not say. Runs are fp32 and eager, attention written out as two products and a softmax.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from costmodel.validate.cells import Flags, RowError, latency, phase_word, size, text
from costmodel.validate.rows import ModelRow

__all__ = ["MODELS", "neusight_row"]

_CONFIGURATIONS = Path(__file__).parent / "transformers"

#: The file's name of a model -> its family.
MODELS = {
    "bert_large": "bert",
    "gpt2_large": "gpt2",
    "gpt3_27": "gpt2",
    "gpt3_xl": "gpt2",
    "opt_13": "opt",
}


def neusight_row(record: Mapping[str, str], file: str, line: int, flags: Flags) -> ModelRow:
    """One row. Raises RowError for operators fused by hand and models without a configuration."""
    model = text(record, "model")
    phase = phase_word({}, text(record, "mode"))
    if record.get("variant"):
        raise RowError(f"variant={record['variant']}: kernels fused by hand, not comparable")
    if model not in MODELS:
        raise RowError(f"unknown model: no configuration of {model}")
    return ModelRow(
        times_device_inputs=True,
        file=file,
        line=line,
        model=model,
        request=f"hf:{_CONFIGURATIONS / f'{model}.json'}",
        device=text(record, "device", flags.device),
        dtype=flags.dtype or "fp32",
        layout="nchw",
        mode=flags.mode or "eager",
        phase=phase,
        torch=flags.torch,
        batch=size(record, "batch"),
        sizes={"seq_len": size(record, "seqlen")},
        latency_s=latency(record, "e2e_ms", 1e-3),
        family=MODELS[model],
        conditions={"optimizer": "none", **flags.conditions},  # a training row is a forward and a backward pass
    )
