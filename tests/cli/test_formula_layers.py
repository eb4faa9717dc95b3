"""``costmodel formula LAYER``: closed forms, ratios and ridge points as a user sees them."""

from __future__ import annotations

import pytest
import sympy

from costmodel.cli import main


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, str]:
    """The printed ``name = form`` lines, comments under ``#``."""
    assert main(["formula", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    forms = dict(line.split(" = ", 1) for line in lines if not line.startswith("#"))
    return {**forms, "#": " | ".join(line for line in lines if line.startswith("#"))}


def test_a_layer_in_its_own_symbols(capsys: pytest.CaptureFixture[str]) -> None:
    forms = printed(capsys, "conv2d", "--symbols", "d,g")
    c_in, c_out, k, h, w, g, d = sympy.symbols("C_in C_out K H W g d")
    assert sympy.simplify(sympy.sympify(forms["params"]) - c_in * c_out * k**2 / g) == 0
    assert sympy.simplify(sympy.sympify(forms["macs"]) - c_in * c_out * k**2 * h * w / g) == 0
    assert sympy.simplify(sympy.sympify(forms["receptive_field"]) - (1 + d * (k - 1))) == 0


def test_numbers_for_symbols(capsys: pytest.CaptureFixture[str]) -> None:
    forms = printed(capsys, "conv2d", "--set", "K=3,C_in=24", "--set", "C_out=48", "--of", "params")
    assert forms["params"] == "10368"


def test_ratio_of_two_layers_is_the_published_one(capsys: pytest.CaptureFixture[str]) -> None:
    forms = printed(capsys, "depthwise_separable", "--over", "conv2d", "--of", "macs")
    c_out, k = sympy.symbols("C_out K")
    assert sympy.simplify(sympy.sympify(forms["macs / macs(conv2d)"]) - (1 / c_out + 1 / k**2)) == 0


def test_ridge_point_that_is_never_reached_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = "K=3,C_in=64,H=56,W=56"
    forms = printed(capsys, "depthwise", "--set", sizes, "--of", "macs", "--hw", "a100,t4")
    assert forms["#"].count("at no N: its intensity stays below 2.25 FLOP/B") == 2  # 18 FLOP for 8 B


def test_latex(capsys: pytest.CaptureFixture[str]) -> None:
    assert "C_{in}" in printed(capsys, "conv2d", "--of", "params", "--syntax", "latex")["params"]


def test_layers_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["formula", "layers"]) == 0
    names = {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    assert {"conv2d", "depthwise_separable", "squeeze_excitation", "deform_conv2d"} <= names


def test_no_model_hides_behind_the_name_of_a_layer() -> None:
    from costmodel.claims import LAYERS
    from costmodel.sources import known_models

    assert not {model.name for model in known_models(None)} & {*LAYERS, "layers"}


def test_operators_of_a_network_with_their_receptive_fields(capsys: pytest.CaptureFixture[str]) -> None:
    """VGG-16's first pooling: 1 + 2 + 2 + 1 = 6 pixels, every 2."""
    assert main(["formula", "vgg16", "--by", "op", "--symbols", "batch"]) == 0
    lines = capsys.readouterr().out.splitlines()
    pooled = next(line for line in lines if "(max_pool2d)" in line)
    assert "[batch, 64, 112, 112]" in pooled and "sees 6x6, every 2" in pooled


def test_the_batch_at_which_an_operator_crosses_the_ridge_point(capsys: pytest.CaptureFixture[str]) -> None:
    """AlexNet's last layer, 4096 to 1000 in fp32: 2*N*4096*1000 (+ N*1000) FLOP over 4 B for each of 4096*1000 + 1000
    weights and 5096*N inputs and outputs; a T4's ridge is 8.1 TFLOP/s over 320 GB/s."""
    assert main(["formula", "alexnet", "--by", "op", "--hw", "t4"]) == 0
    last = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("classifier.6"))
    said = int(last.rpartition("batch ")[2])

    def intensity(n: int) -> float:
        return (2 * n * 4096 * 1000 + 1000 * n) / (4 * (4097 * 1000 + 5096 * n))

    ridge = 8.141e12 / 320e9
    assert intensity(said) == pytest.approx(ridge, rel=0.05)
    assert "relu" not in last


def test_ridge_points_of_a_network_are_asked_for_by_operator(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["formula", "alexnet", "--hw", "t4"]) == 2
    assert "--by op --hw t4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["conv2d", "--set", "Q=3"], "conv2d has no size 'Q'"),
        (["conv2d", "--of", "param"], "did you mean params"),
        (["conv2d", "--over", "conv9d"], "did you mean conv"),
        (["conv2d", "--solve", "N"], "--solve needs a machine"),
        (["resnet18", "--set", "K=3"], "are for layers, not for resnet18"),
    ],
)
def test_what_does_not_fit_is_refused(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert main(["formula", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.out == ""


def test_one_quantity_of_a_network_over_its_batch_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """torchvision's published 4.09 GMAC of ResNet-50, to the last MAC, for every picture of the batch."""
    forms = printed(capsys, "resnet50", "--symbols", "batch", "--of", "macs")
    assert forms["macs"] == "4089184256*batch"
