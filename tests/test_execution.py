"""Parts of a run: words in, words out, and what is refused."""

from __future__ import annotations

import re

import pytest

from costmodel.errors import InputError
from costmodel.execution import DTYPES, LAYOUTS, Execution, Optimizer, Phase, Precision, Software
from costmodel.execution.precision import BITS, torch_dtype


@pytest.mark.parametrize("word", DTYPES)
def test_every_dtype_is_printed_as_it_was_parsed(word: str) -> None:
    assert str(Precision.of(word)) == word
    assert Execution.of(dtype=word).words["dtype"] == word


def test_words_stand_for_different_precisions() -> None:
    assert len({Precision.of(word) for word in DTYPES}) == len(DTYPES)


@pytest.mark.parametrize(
    ("word", "weights", "autocast", "products", "bits"),
    [
        ("fp32", "fp32", None, "fp32", 32),
        ("tf32", "fp32", None, "tf32", 32),
        ("fp16", "fp16", None, "fp32", 16),
        ("amp_bf16", "fp32", "bf16", "fp32", 16),
    ],
)
def test_what_the_words_mean(word: str, weights: str, autocast: str | None, products: str, bits: int) -> None:
    found = Precision.of(word)
    assert (found.weights, found.autocast, found.products, found.bits) == (weights, autocast, products, bits)
    assert found.is_traced == (word in ("fp32", "tf32"))


def test_four_bit_weights_fit_and_say_what_they_are() -> None:
    found = Precision(weights="int4", activations="fp16", cache="fp16")
    assert (found.weight_bits, found.bits, BITS[found.cache]) == (4, 16, 16)
    assert str(found) == "int4 weights, fp16 activations, fp16 cache"
    with pytest.raises(InputError, match="int4 is not modelled yet"):
        torch_dtype(found.weights)


def test_torchs_names_of_dtypes_are_ours() -> None:
    for name, word in (("float16", "fp16"), ("torch.bfloat16", "bf16"), ("half", "fp16"), ("float32", "fp32")):
        assert Execution.of(dtype=name) == Execution.of(dtype=word)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"dtype": "fp61"}, "there is no dtype 'fp61'"),
        ({"dtype": "float8"}, "there is no dtype 'float8'"),
        ({"layout": "nhcw"}, "there is no layout 'nhcw'"),
        ({"phase": "decoding"}, "there is no phase 'decoding'"),
        ({"phase": "idle"}, "there is no phase 'idle'"),
        ({"batch": 0}, "batch must be a whole number of at least 1, not 0"),
        ({"batch": True}, "not True"),
        ({"dtpye": "fp16"}, "no condition of a run is called 'dtpye'"),
    ],
)
def test_what_no_part_knows_is_refused(words: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        Execution.of(**words)


def test_a_phase_is_its_word_or_itself() -> None:
    for asked in (Phase.DECODE, "decode"):
        assert Execution(phase=asked).phase is Phase.DECODE  # type: ignore[arg-type]
    assert [phase.value for phase in Phase if phase.generates] == ["prefill", "decode"]


def test_switches_take_yes_and_no_and_nothing_else() -> None:
    assert not Execution.of(fast_norm="no").software.fast_norm
    with pytest.raises(InputError, match="fast_norm: 'perhaps' is no bool"):
        Execution.of(fast_norm="perhaps")


def test_a_word_in_the_place_of_a_part_is_refused() -> None:
    with pytest.raises(InputError, match="precision is a Precision, not 'fp16'"):
        Execution(precision="fp16")  # type: ignore[arg-type]


def test_a_precision_of_an_unknown_format_is_refused() -> None:
    with pytest.raises(InputError, match="there is no number format 'fp12'"):
        Precision(weights="fp12")


def test_a_change_touches_its_part_alone() -> None:
    run = Execution.of(batch=4, dtype="fp16", fast_norm=True)
    changed = run.changed(layout="nhwc", tf32_matmul=True, batch=None)
    assert changed == Execution.of(batch=4, dtype="fp16", layout="nhwc", fast_norm=True, tf32_matmul=True)
    assert set(LAYOUTS) == {run.layout, changed.layout}


@pytest.mark.parametrize(("torch", "asked", "holds"), [
    ("2.4.1", (2, 5), False), ("2.10.0+cu126", (2, 5), True), ("", (9, 9), True), ("2.5", (2, 5), True),
])  # fmt: skip
def test_releases_are_compared_by_number(torch: str, asked: tuple[int, ...], holds: bool) -> None:
    assert Software(torch=torch).at_least_torch(*asked) is holds


@pytest.mark.parametrize("algorithm", ["sgd", "momentum", "nesterov", "adam", "adamw"])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("decay", [None, False, True])
def test_an_optimizer_reads_what_it_prints(algorithm, fused, decay):
    printed = str(Optimizer(algorithm=algorithm, fused=fused, weight_decay=decay))
    again = Execution.of(phase="training", optimizer=printed).optimizer
    assert (again.algorithm, again.fused, again.decays) == (
        algorithm,
        fused,
        Optimizer(algorithm=algorithm, weight_decay=decay).decays,
    )
    assert str(again) == printed


def test_an_optimizer_in_brackets_that_nobody_prints_is_refused():
    with pytest.raises(InputError, match=r"no optimizer 'adam \(quick\)'"):
        Execution.of(optimizer="adam (quick)")
