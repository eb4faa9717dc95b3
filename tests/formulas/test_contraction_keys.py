"""Every operator that the sheets of contractions, attention, normalizations and recurrences name exists in torch."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
import torch

from costmodel.formulas import (
    attention,
    contraction,
    convolution,
    einsum,
    normalization,
    recurrent,
    registry,
    similarity,
)

SHEETS = [attention, contraction, convolution, einsum, normalization, recurrent, similarity]
KEYS = sorted(
    (operator, sheet.__name__)
    for operator in registry.known_operators()
    for sheet in SHEETS
    if (function := registry.lookup(operator)) is not None and function.__module__ == sheet.__name__
)


ATEN = [k for k in KEYS if k[0].startswith("aten.")]

#: Tensors of a schema that the formula leaves out of its traffic, and why.
LEFT_OUT = {
    "aten._cudnn_rnn": {"weight_buf", "dropout_state"},  # the weights again, packed; the generator's state
    "aten._cudnn_rnn_backward": {"weight_buf", "dropout_state"},  # the weights again, packed; the generator's state
    "aten._scaled_mm": {"scale_result"},  # ignored since torch 2.5
    "aten._flash_attention_forward": {"q_descale", "k_descale", "v_descale", "seqused_k", "alibi_slopes"}
    | {"block_table"},
    "aten._scaled_dot_product_flash_attention": {"q_descale", "k_descale", "v_descale"},
    "aten._efficient_attention_forward": {"seqlen_k"},
    "aten._scaled_dot_product_attention_math": {"dropout_mask"},
    "aten._scaled_dot_product_attention_math_for_mps": {"dropout_mask"},
}


def schemas(operator):
    """Argument names and types of every overload that does not write into a given result."""
    packet = getattr(torch.ops.aten, operator.removeprefix("aten."), None)
    assert packet is not None, f"torch {torch.__version__} has no {operator}"
    overloads = [getattr(packet, name)._schema for name in packet.overloads()]
    allocating = [s for s in overloads if not any(a.is_out for a in s.arguments) and s.overload_name != "sublist"]
    assert allocating
    return [{("input" if a.name == "self" else a.name): str(a.type) for a in s.arguments} for s in allocating]


@pytest.mark.parametrize(("operator", "sheet"), ATEN)
def test_every_key_is_a_packet_that_passes_what_its_formula_needs(operator, sheet):
    parameters = inspect.signature(registry.lookup(operator)).parameters.values()
    needed = {p.name for p in parameters if p.default is p.empty} - {"out"}
    for arguments in schemas(operator):
        assert needed <= set(arguments)


@pytest.mark.parametrize(("operator", "sheet"), ATEN)
def test_every_tensor_of_a_schema_is_read_by_its_formula(operator, sheet):
    """A tensor that the formula does not name would be missing from its traffic."""
    named = set(inspect.signature(registry.lookup(operator)).parameters) | LEFT_OUT.get(operator, set())
    for arguments in schemas(operator):
        assert {name for name, kind in arguments.items() if "Tensor" in kind} <= named


def test_there_are_keys_of_every_sheet():
    assert {sheet for _, sheet in KEYS} == {s.__name__ for s in SHEETS}


def test_the_sheets_import_neither_torch_nor_sympy():
    modules = ", ".join(s.__name__ for s in SHEETS)
    code = f"import sys, {modules}; print([m for m in ('torch', 'sympy', 'networkx', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
