"""Arguments in a request: literals only, checked against what is called, part of name and cache key."""

from __future__ import annotations

import pytest

import costmodel
from costmodel.errors import CostmodelError, InputError
from costmodel.sources import LoadedModel, full_name, resolve
from costmodel.sources.arguments import alternatives, canonical, parse_request
from costmodel.traced import load_trace

pytest.importorskip("torch")

NET = """
import torch
from torch import nn

def make(width, depth=2, **more):
    return nn.Sequential(*[nn.Linear(width, width) for _ in range(depth)]), torch.zeros(1, width)

def strict(width=8):
    return nn.Linear(width, width), torch.zeros(1, width)

there = nn.Linear(2, 2)
"""


@pytest.fixture
def net(tmp_path) -> str:
    folder = tmp_path / "with (parentheses)"
    folder.mkdir()
    (folder / "net.py").write_text(NET)
    return str(folder / "net.py")


def weights(loaded: LoadedModel) -> int:
    return sum(parameter.numel() for parameter in loaded.module.parameters())


def test_timm_builds_another_width_and_depth():
    loaded = resolve("timm:vit_small_patch16_224(embed_dim=448,num_heads=7,depth=10)")
    width, tokens = 448, 197
    block = 12 * width * width + 13 * width  # qkv, projection and MLP with biases, two norms
    rest = (3 * 256 + 1) * width + width + tokens * width + 2 * width + (width + 1) * 1000
    assert weights(loaded) == 10 * block + rest
    assert loaded.name == "vit_small_patch16_224(embed_dim=448,num_heads=7,depth=10)"


def test_a_resnet_of_twice_the_width_is_torchvisions_wide_resnet():
    assert weights(resolve("torchvision:resnet50(width_per_group=128)")) == weights(
        resolve("torchvision:wide_resnet50_2")
    )


def test_channels_and_image_size_of_the_input_follow_the_arguments():
    loaded = resolve("timm:vit_tiny_patch16_224(in_chans=1,img_size=(96,64))")
    assert (loaded.tensor_inputs[0].dims[1], loaded.sizes) == (1, {"height": 96, "width": 64})
    assert resolve("torchvision:vit_b_32(image_size=64)").sizes == {"height": 64, "width": 64}


def test_a_part_and_a_folded_form_stand_behind_the_arguments():
    assert resolve("torchvision:resnet18(num_classes=10).fc").name == "resnet18(num_classes=10).fc"
    assert resolve("timm:repvgg_a0(num_classes=10)+reparameterized").name == "repvgg_a0(num_classes=10)+reparameterized"


def test_what_torchvision_sets_itself_is_not_offered():
    with pytest.raises(InputError) as error:
        resolve("torchvision:resnext50_32x4d(grops=16)")
    assert "num_classes=1000" in str(error.value)
    assert not any(word in str(error.value) for word in ("groups=", "width_per_group", "layers"))


def test_a_backbone_of_timm_gives_the_feature_maps_that_are_asked_for():
    found = costmodel.analyze("timm:resnet18(features_only=True,out_indices=(1,3))", hw="t4")
    shapes = [found.bound.specs[found.bound.tensors[i].spec].shape for i in found.bound.outputs]
    assert shapes == [(1, 64, 56, 56), (1, 256, 14, 14)]


def test_a_factory_is_called_with_them(net):
    loaded = resolve(f"{net}:make(width=4, depth=3)")
    assert (weights(loaded), loaded.name) == (3 * 20, "make(width=4,depth=3)")
    assert full_name("resnet18(num_classes=10)") == "timm:resnet18(num_classes=10)"


def test_a_configuration_is_overridden_parts_included():
    pytest.importorskip("transformers")
    layer = weights(resolve("hf:bert(num_hidden_layers=2)")) - weights(resolve("hf:bert(num_hidden_layers=1)"))
    assert layer == 4 * (768 * 768 + 768) + 2 * 768 * 3072 + 3072 + 768 + 4 * 768
    assert resolve("hf:clip(vision_config={'image_size': 64})").sizes["height"] == 64


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ("timm:vit_tiny_patch16_224(embed_dims=96)", "did you mean embed_dim"),
        ("timm:regnetx_002(dept=4)", "did you mean depth"),  # a field of its configuration
        ("timm:resnet18(pretrained=True)", "leave out pretrained"),
        ("timm:vit_tiny_patch16_224(img_size=64,embed_dim=100)", "divisible"),
        ("torchvision:resnet18(width_per_groop=128)", "did you mean width_per_group"),
        (
            "timm:vit_tiny_patch16_224(embed_dims=96)",
            "embed_dim=192, depth=12, num_heads=3",
        ),  # of the name, not the class
        ("timm:resnet26(dept=3)", "layers=(2, 2, 2, 2)"),
        ("timm:resnet18(out_indices=(1,))", "write features_only=True"),
        ("torchvision:vit_b_16(hidden_dim=384)", "sets hidden_dim itself"),
        ("torchvision:resnext50_32x4d(groups=16)", "sets groups itself"),
        ("torchvision:resnet18(weights='DEFAULT')", "leave out weights"),
        ("hf:bert(num_layers=4)", "num_hidden_layers"),
        ("hf:clip(vision_config={{'image_sise': 64}})", "did you mean image_size"),
        ("zoo:zfnet(width=3)", "takes no argument 'width'"),
        ("{net}:strict(depth=3)", "width=8"),
        ("{net}:make(depth=3)", "needs a value for width"),
        ("{net}:there(width=3)", "is a Linear already"),
        ("{net}:make(width=2*4)", "is no literal"),
        ("{net}:make(width=__import__('os'))", "is no literal"),
        ("{net}:make(8)", "does not say which argument"),
        ("{net}:make(**{{'width': 8}})", "does not say which argument"),
        ("{net}:make(width=8", "not closed"),
        ("{net}:make(width=)", "cannot be read"),
        ("{net}:make(width=8,width=16)", "says width twice"),
        ("{net}:make(width={{4,8}})", "sweep"),
        ("timm:resnet18(num_classes=10)(in_chans=1)", "cannot be read"),
    ],
)
def test_what_cannot_be_is_refused_with_what_there_is(net, request_, said):
    with pytest.raises(CostmodelError) as error:
        resolve(request_.format(net=net))
    assert said in str(error.value)


def test_nothing_of_a_request_is_evaluated(net, tmp_path):
    mark = tmp_path / "ran"
    with pytest.raises(InputError):
        resolve(f"{net}:make(width=open({str(mark)!r}, 'w').write('x'))")
    assert not mark.exists()


def test_a_saved_program_takes_none(tmp_path):
    with pytest.raises(InputError, match="saved as it is"):
        resolve("model.pt2(width=3)")


def test_a_file_whose_name_has_parentheses_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model (1).pt2").touch()
    assert parse_request("model (1).pt2").name == "model (1).pt2"


def test_the_cache_knows_arguments_and_not_how_they_are_written(net, tmp_path, monkeypatch):
    monkeypatch.setenv("COSTMODEL_CACHE_DIR", str(tmp_path / "traces"))
    narrow = load_trace(f"{net}:make(width=4,depth=1)")
    wide = load_trace(f"{net}:make(width=8,depth=1)")
    again = load_trace(f"{net}:make( depth = 1, width = 8 )", use_cache="only")
    assert (narrow.graph.param_count, wide.graph.param_count, again.graph.param_count) == (20, 72, 72)
    assert canonical("a(c=1, b='x')") == canonical("a( b = 'x',c=1)") == "a(b='x',c=1)"


def test_the_same_words_in_another_directory_are_another_network(tmp_path, monkeypatch):
    monkeypatch.setenv("COSTMODEL_CACHE_DIR", str(tmp_path / "traces"))
    for name, width in (("here", 4), ("there", 8)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "net.py").write_text(NET.replace("width=8", f"width={width}"))
    counts = []
    for name in ("here", "there", "here"):
        monkeypatch.chdir(tmp_path / name)
        counts.append(load_trace("net.py:strict").graph.param_count)
    assert counts == [20, 72, 20]


def test_a_changed_file_makes_the_trace_anew(net, tmp_path, monkeypatch):
    monkeypatch.setenv("COSTMODEL_CACHE_DIR", str(tmp_path / "traces"))
    assert load_trace(f"{net}:make(width=4,depth=1)").graph.param_count == 20
    with open(net, "w") as file:
        file.write(NET.replace("range(depth)", "range(2 * depth)"))
    assert load_trace(f"{net}:make(width=4,depth=1)").graph.param_count == 40


def test_braces_stand_for_one_request_each():
    assert alternatives("resnet50") == ["resnet50"]
    assert alternatives("timm:resnet{18,34}") == ["timm:resnet18", "timm:resnet34"]
    assert alternatives("n(a={1,2},b=(3,4),c={'x','y'}).fc") == [
        f"n(a={a},b=(3, 4),c={c!r}).fc" for a in (1, 2) for c in ("x", "y")
    ]
    assert alternatives("n(a={'k': 1})") == ["n(a={'k': 1})"]
