"""ONNX files: the same counts as the models that they were exported from, and clear words where one is not read."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import costmodel
from costmodel.errors import ModelError, UnknownModelError
from costmodel.sources import resolve
from costmodel.sources.torchvision_ops import make_importable

onnx = pytest.importorskip("onnx")

#: Of as many kinds as there are in few operators: plain, residual, dense, depthwise, gated, attention, windows, mixing.
MODELS = [
    "torchvision:resnet18", "torchvision:squeezenet1_1", "torchvision:mobilenet_v2", "torchvision:shufflenet_v2_x0_5",
    "torchvision:regnet_y_400mf", "torchvision:mnasnet0_5", "timm:vit_tiny_patch16_224", "timm:convnext_atto",
    "timm:efficientnet_b0", "timm:resnext26ts",
]  # fmt: skip


def export(module: nn.Module, inputs: torch.Tensor, file: Path, **options: object) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), (inputs,), str(file), dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "batch"}},
            **options,  # type: ignore[arg-type]
        )  # fmt: skip
    return file


@pytest.mark.parametrize("request_name", MODELS)
def test_an_exported_model_has_the_macs_of_its_original(request_name, tmp_path):
    make_importable()
    prefix, _, name = request_name.partition(":")
    if prefix == "timm":
        import timm

        module = timm.create_model(name)
    else:
        import torchvision

        module = torchvision.models.get_model(name)
    size = 224
    file = export(module, torch.zeros(2, 3, size, size), tmp_path / f"{name}.onnx")
    read, original = (
        costmodel.analyze(r, hw="a100", batch=3, image_size=asked)
        for r, asked in ((str(file), None), (request_name, size))
    )
    assert read.totals.macs == original.totals.macs
    assert list(read.record.symbols) == ["batch"]


class Attention(nn.Module):
    """As torch's own, its shapes are computed in the file, which looks at the batch on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


def test_a_file_that_looks_at_its_batch_is_run_at_the_batch_asked_for(tmp_path):
    file = str(export(Attention(), torch.zeros(2, 10, 16), tmp_path / "attention.onnx"))
    one, three = (costmodel.analyze(file, hw="t4", batch=batch).totals.macs for batch in (1, 3))
    # queries, keys, values, their output; scores and what they weigh: 10 tokens of 16
    assert (one, three) == (4 * 10 * 16 * 16 + 2 * 10 * 10 * 16, 3 * one)


def test_a_value_is_let_go_after_its_last_reader(tmp_path):
    """A chain holds two maps at once, in the file as in the module."""
    layers = [layer for i in range(6) for layer in (nn.Conv2d(3 + 5 * (i > 0), 8, 3, padding=1), nn.ReLU())]
    module, x = nn.Sequential(*layers).eval(), torch.zeros(4, 3, 64, 64)
    read = costmodel.analyze(str(export(module, x, tmp_path / "chain.onnx")), hw="t4", batch=4)
    original = costmodel.analyze(module, x, hw="t4")
    assert read.memory.peak_bytes == original.memory.peak_bytes
    assert read.memory.activation_bytes == original.memory.activation_bytes


def made(tmp_path: Path, nodes: list, inputs: dict, weights: dict | None = None, outputs: tuple = ("y",)) -> str:
    """An ONNX file of these nodes."""
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    kinds = {"f": onnx.TensorProto.FLOAT, "i": onnx.TensorProto.INT64}
    graph = helper.make_graph(
        nodes, "graph",
        [helper.make_tensor_value_info(n, kinds[k], dims) for n, (k, dims) in inputs.items()],
        [helper.make_tensor_value_info(n, kinds["f"], None) for n in outputs],
        [numpy_helper.from_array(torch.as_tensor(v).numpy(), n) for n, v in (weights or {}).items()],
    )  # fmt: skip
    file = tmp_path / "made.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), str(file))
    return str(file)


def test_modules_weights_and_sizes_keep_their_names(tmp_path):
    node = onnx.helper.make_node("Conv", ["x", "stem.conv.weight"], ["y"], name="/stem/stem.conv/Conv")
    file = made(tmp_path, [node], {"x": ("f", ["n", 3, "h", "w"])}, {"stem.conv.weight": torch.zeros(8, 3, 3, 3)})
    found = costmodel.analyze(file, hw="a100", batch=2, image_size=(10, 12))
    (row,) = [node for node in found.record.nodes if node.op == "aten.conv2d"]
    assert (row.module, found.record.parameters) == ("stem.conv", {"stem.conv.weight": 216})
    assert found.totals.macs == 2 * 8 * 27 * 8 * 10


def test_a_recurrent_layer_counts_its_matrices_once_a_token(tmp_path):
    node = onnx.helper.make_node("LSTM", ["x", "w", "r", "b"], ["y"], hidden_size=7)
    weights = {"w": torch.zeros(1, 28, 5), "r": torch.zeros(1, 28, 7), "b": torch.zeros(1, 56)}
    file = made(tmp_path, [node], {"x": ("f", [3, 2, 5])}, weights)
    assert costmodel.analyze(file, hw="a100").totals.macs == 3 * 2 * (28 * 5 + 28 * 7)


def test_shapes_are_computed_on_the_host_and_keep_the_batch_open(tmp_path):
    make = onnx.helper.make_node
    nodes = [
        make("Shape", ["x"], ["shape"]),
        make("Gather", ["shape", "zero"], ["n"], axis=0),
        make("Unsqueeze", ["n", "axes"], ["first"]),
        make("Concat", ["first", "rest"], ["sizes"], axis=0),
        make("Reshape", ["x", "sizes"], ["flat"]),
        make("MatMul", ["flat", "w"], ["y"]),
    ]
    weights = {"zero": 0, "axes": [0], "rest": [12], "w": torch.zeros(12, 5)}
    file = made(tmp_path, nodes, {"x": ("f", ["batch", 3, 4])}, weights)
    found = costmodel.analyze(file, hw="a100", batch=7)
    assert list(found.record.symbols) == ["batch"]
    assert found.totals.macs == 7 * 12 * 5
    assert [n.op for n in found.record.nodes] == ["aten.view", "aten.matmul"]


def test_what_is_not_read_is_named(tmp_path):
    make = onnx.helper.make_node
    nodes = [make("Relu", ["x"], ["a"]), make("NonZero", ["a"], ["b"]), make("NonZero", ["a"], ["y"])]
    with pytest.raises(ModelError, match=r"not read: NonZero \(2\)"):
        resolve(made(tmp_path, nodes, {"x": ("f", [2, 3])}))


def test_a_file_that_is_none_and_one_that_is_not_there(tmp_path):
    (tmp_path / "bad.onnx").write_text("nothing")
    with pytest.raises(ModelError, match="no ONNX model"):
        resolve(str(tmp_path / "bad.onnx"))
    with pytest.raises(UnknownModelError, match="there is no file"):
        resolve(str(tmp_path / "none.onnx"))


def test_weights_alone_are_refused_with_what_to_give(tmp_path):
    layer = nn.Linear(3, 4)
    torch.save(layer.state_dict(), tmp_path / "w.pt")
    torch.jit.save(torch.jit.script(layer), str(tmp_path / "s.pt"))
    with pytest.raises(ModelError, match=r"weights .*\n.*factory"):
        resolve(str(tmp_path / "w.pt"))
    with pytest.raises(ModelError, match="TorchScript"):
        resolve(str(tmp_path / "s.pt"))
