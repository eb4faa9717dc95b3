"""Mixtures of experts: work by the tokens, weights by expectation, no copies of weights unless asked for."""

from __future__ import annotations

import json
import random

import pytest

import costmodel
from costmodel.errors import InputError
from costmodel.formulas.experts import expected_experts
from tests.generation.configs import CONFIGS

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


def analyzed(tmp_path, name="experts", **more):
    file = tmp_path / f"{name}.json"
    file.write_text(json.dumps(CONFIGS[name]), encoding="utf-8")
    way = more.pop("way", None)
    arguments = f"(experts_implementation={way!r})" if way else ""
    conditions = {"hw": "a100", "phase": "decode", "context": 40, "symbols": ("batch", "context"), "use_cache": False}
    return costmodel.analyze(f"hf:{file}{arguments}", **{**conditions, **more})


@pytest.mark.parametrize(("experts", "chosen"), [(5, 2), (8, 2), (64, 6)])
@pytest.mark.parametrize("tokens", [1, 2, 7, 30])
def test_expected_experts_are_those_of_a_drawing(experts, chosen, tokens):
    draw = random.Random(0)  # noqa: S311
    rounds = 2000
    met = sum(
        len({expert for _ in range(tokens) for expert in draw.sample(range(experts), chosen)}) for _ in range(rounds)
    )
    assert expected_experts(experts, chosen, tokens) == pytest.approx(met / rounds, abs=0.6)


def test_one_token_meets_as_many_as_it_is_sent_to_and_many_meet_all():
    for experts, chosen in ((8, 2), (256, 8)):
        assert expected_experts(experts, chosen, 1) == chosen
        assert expected_experts(experts, chosen, 100_000) == experts


def test_the_expectation_stays_open_in_the_batch():
    import sympy

    tokens = sympy.Symbol("batch", positive=True, integer=True)
    assert expected_experts(8, 2, tokens).subs(tokens, 4) == 8 * (1 - sympy.Rational(3, 4) ** 4)


#: Elements of gate and up projection of one expert, and experts of a token.
_WIDEST = {"experts": (224 * 96, 2), "shared_experts": (80 * 96, 3)}


@pytest.mark.parametrize("name", _WIDEST)
def test_no_weights_are_copied_and_the_work_is_the_same(tmp_path, name):
    grouped, gathered = (analyzed(tmp_path, name, batch=16, way=way) for way in (None, "batched_mm"))
    assert grouped.totals.macs == gathered.totals.macs
    elements, chosen = _WIDEST[name]
    copies = 4 * 16 * chosen * elements
    assert gathered.totals.peak_memory_bytes - grouped.totals.peak_memory_bytes > 0.9 * copies
    assert gathered.totals.bytes_written - grouped.totals.bytes_written > 2 * copies  # of two layers


def test_a_token_reads_the_weights_of_its_experts(tmp_path):
    found = analyzed(tmp_path)
    products = [row for row in found.rows() if row.op == "costmodel.grouped_mm"]
    # Two layers, gate and up projection together and down projection: 2 of 5 experts, 96 x 224 and 112 x 96.
    weights = 2 * 2 * (96 * 224 + 112 * 96)
    beside = 2 * (2 * (96 + 112) + 2 * 5)  # rows, and where the experts' rows end
    assert sum(row.bytes_read for row in products) == 4 * (weights + beside)


def test_what_depends_on_the_routing_is_refused(tmp_path):
    with pytest.raises(InputError, match="depends on values"):
        analyzed(tmp_path, way="eager")


def test_models_that_run_experts_their_own_way_are_left_to_it():
    found = costmodel.analyze("hf:llama4_text(num_hidden_layers=1)", hw="h100", phase="decode", use_cache=False)
    assert found.totals.macs > 0
