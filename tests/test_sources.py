"""Sources: a name becomes a module without storage and named inputs, or an error that helps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from costmodel.errors import CostmodelError, InputError, ModelError, UnknownModelError
from costmodel.sources import (
    LoadedModel,
    TensorInput,
    from_module,
    full_name,
    known_models,
    real_weights,
    resolve,
)

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

Count = Callable[[LoadedModel], int]


def output_of(loaded: LoadedModel, **sizes: int) -> object:
    args, kwargs = loaded.inputs(sizes)
    with torch.no_grad():
        return loaded.module(*args, **kwargs)


def is_on_meta(loaded: LoadedModel) -> bool:
    return all(t.is_meta for t in (*loaded.module.parameters(), *loaded.module.buffers()))


# --- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "library", "name"),
    [
        ("resnet50", "timm", "resnet50"),
        ("alexnet", "torchvision", "alexnet"),
        ("zfnet", "costmodel zoo", "zfnet"),
        ("torchvision:resnet50", "torchvision", "resnet50"),
        ("mobilenet_v1", "timm", "mobilenetv1_100"),
        ("resnet50.a1_in1k", "timm", "resnet50.a1_in1k"),
    ],
)
def test_a_name_is_looked_for_in_timm_then_torchvision_then_the_zoo(request_: str, library: str, name: str) -> None:
    loaded = resolve(request_)
    assert loaded.source.startswith(library)
    assert loaded.name == name
    assert is_on_meta(loaded)
    assert not loaded.module.training


def test_an_alias_says_what_it_stands_for() -> None:
    assert resolve("se_resnet50").notes == ["'se_resnet50' is timm:seresnet50"]


def test_a_model_that_can_fold_its_branches_says_so_and_does() -> None:
    """RepVGG-A0 folded is a chain of 3x3 convolutions: 9 109 k parameters become 8 309 k (RepVGG, table 4: 8.30 M)."""
    plain, folded = resolve("repvgg_a0"), resolve("timm:repvgg_a0+reparameterized")
    assert any("timm:repvgg_a0+reparameterized folds them" in note for note in plain.notes)
    assert not folded.notes
    assert folded.name == "repvgg_a0+reparameterized"
    assert round(sum(p.numel() for p in folded.module.parameters()) / 1e6, 2) == 8.31
    assert not any(type(part).__name__.startswith("BatchNorm") for part in folded.module.modules())


@pytest.mark.parametrize("request_", ["timm:resnet50+reparameterized", "timm:repvgg_a0+folded"])
def test_what_cannot_be_folded_is_refused(request_: str) -> None:
    with pytest.raises(ModelError, match=r"fold|reparameterized"):
        resolve(request_)


def test_no_alias_hides_a_model_and_every_alias_leads_to_one() -> None:
    from costmodel.sources.aliases import ALIASES
    from costmodel.sources.registry import all_sources

    sources = all_sources()
    names = {name for place in sources.values() if place.bare for name in place.names()}
    assert not names & ALIASES.keys()
    for target in ALIASES.values():
        prefix, _, name = target.partition(":")
        assert name in sources[prefix].names()


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        ("resnt50", UnknownModelError, ["resnt50", "did you mean resnet50", "hf:MODEL_TYPE"]),
        ("timm:alexnet", UnknownModelError, ["torchvision:alexnet"]),
        ("torchvision:zfnet", UnknownModelError, ["zoo:zfnet"]),
        ("zoo:zfnt", UnknownModelError, ["zoo:zfnet"]),
        ("tim:resnet50", UnknownModelError, ["did you mean timm:", "torchvision:NAME"]),
        ("timm:resnet50.b9", ModelError, ["'b9'", "a1_in1k"]),
        ("", UnknownModelError, ["names no model"]),
        ("torchvision:resnet50.layr1", UnknownModelError, ["layer1"]),
        ("torchvision:fasterrcnn_resnet50_fpn", ModelError, ["torchvision:fasterrcnn_resnet50_fpn.backbone"]),
    ],
)
def test_errors_say_what_there_is(request_: str, error: type[CostmodelError], words: list[str]) -> None:
    with pytest.raises(error) as raised:
        resolve(request_)
    for word in words:
        assert word in str(raised.value)


def test_known_models_match_patterns() -> None:
    found = {(m.source, m.name) for m in known_models("*shufflenet*")}
    assert {("zoo", "shufflenet_v1"), ("torchvision", "shufflenet_v2_x1_0")} <= found
    assert all("shufflenet" in name for _, name in found)
    assert ("timm", "resnet50") in {(m.source, m.name) for m in known_models("resnet50")}
    assert len([m for m in known_models() if m.source == "timm"]) >= 1371


def test_families_are_told() -> None:
    families = {m.name: m.family for m in known_models("resnet50") if m.source == "timm"}
    assert families["resnet50"] == "resnet"


# --- sizes ---------------------------------------------------------------------------------------------------------


def test_image_size_reaches_the_input() -> None:
    loaded = resolve("resnet50", image_size=(160, 192))
    assert loaded.inputs({"batch": 4})[0][0].shape == (4, 3, 160, 192)
    assert resolve("resnet50", input_shape=(3, 96, 64)).inputs()[0][0].shape == (1, 3, 96, 64)


def test_default_sizes_are_the_models_own() -> None:
    """NASNet-A large was published at 331, Xception and Inception at 299, AlexNet at 224."""
    assert resolve("nasnetalarge").sizes == {"height": 331, "width": 331}
    assert resolve("torchvision:inception_v3").sizes == {"height": 299, "width": 299}
    assert resolve("torchvision:alexnet").sizes == {"height": 224, "width": 224}


@pytest.mark.parametrize("name", ["timm:vit_tiny_patch16_224", "torchvision:vit_b_16", "hf:vit"])
def test_a_fixed_grid_is_built_anew_for_another_size(name: str, params: Count) -> None:
    """384/16 = 24 patches a side instead of 14: 24² - 14² = 380 more positions of the model's width."""
    small, large = resolve(name), resolve(name, image_size=384)
    width = {"timm:vit_tiny_patch16_224": 192}.get(name, 768)
    assert params(large) - params(small) == 380 * width
    assert any("384" in note for note in large.notes)
    output_of(large, batch=2)


@pytest.mark.parametrize(
    ("request_", "sizes", "words"),
    [
        ("resnet50", {"image_size": 0}, "at least 1, not 0"),
        ("resnet50", {"image_size": (224, -1)}, "at least 1"),
        ("resnet50", {"input_shape": (1, 3, 224, 224)}, "without the batch"),
        ("resnet50", {"input_shape": (4, 224, 224)}, "3,height,width"),
        ("resnet50", {"seq_len": 7}, "no seq_len"),
        ("char_cnn_gap", {"image_size": 7}, "no image size"),
        ("resnet50", {"image_size": 64, "input_shape": (3, 32, 32)}, "contradicts"),
        ("torchvision:vit_b_16", {"image_size": (384, 256)}, "square"),
        ("torchvision:vit_b_16", {"image_size": 225}, "225"),
        ("hf:bert", {"seq_len": 513}, "512 positions"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(request_: str, sizes: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        resolve(request_, **sizes)  # type: ignore[arg-type]


def test_inputs_refuse_sizes_that_the_model_does_not_have() -> None:
    with pytest.raises(InputError, match="no size 'seq_len'"):
        resolve("resnet18").inputs({"seq_len": 3})
    with pytest.raises(InputError, match="batch must be"):
        resolve("resnet18").inputs({"batch": 0})


# --- torchvision ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("r3d_18", (2, 400)),  # Kinetics-400
        ("raft_small", (2, 2, 520, 960)),  # flow: two components a pixel
        ("deeplabv3_mobilenet_v3_large", (2, 21, 520, 520)),  # 20 classes of VOC and the background
        ("resnet50.layer2", (2, 512, 28, 28)),
        ("swin_t.features.3.0", (2, 28, 28, 192)),
    ],
)
def test_torchvision_models_and_parts_run(name: str, shape: tuple[int, ...]) -> None:
    output = output_of(resolve(f"torchvision:{name}"), batch=2)
    if isinstance(output, dict):
        output = output["out"]
    elif isinstance(output, list):
        output = output[-1]
    assert output.shape == shape  # type: ignore[attr-defined]


def test_detection_backbone_puts_out_a_pyramid() -> None:
    """800x1333 padded to 32: 800x1344; strides 4 to 64, 256 channels (Lin et al., FPN)."""
    pyramid = output_of(resolve("torchvision:fasterrcnn_resnet50_fpn.backbone"), batch=2)
    assert [tuple(v.shape) for v in pyramid.values()] == [  # type: ignore[attr-defined]
        (2, 256, -(-800 // s), 1344 // s) for s in (4, 8, 16, 32, 64)
    ]


def test_torchvision_operators_have_shapes_on_meta() -> None:
    """They do whether or not torchvision's compiled library fits this torch."""
    resolve("torchvision:alexnet")
    from torchvision.ops import deform_conv2d, roi_align

    def meta(*shape: int) -> object:
        return torch.empty(shape, device="meta")

    assert deform_conv2d(meta(2, 4, 9, 9), meta(2, 18, 7, 7), meta(6, 4, 3, 3)).shape == (2, 6, 7, 7)
    assert roi_align(meta(2, 4, 9, 9), meta(5, 5), output_size=3).shape == (5, 4, 3, 3)


# --- timm: one of each family ---------------------------------------------------------------------------------------


def one_of_some_families(step: int) -> list[str]:
    """Of every ``step``-th module of timm the model with the shortest name, as the smallest ones tend to be."""
    first: dict[str | None, str] = {}
    for model in known_models():
        if model.source == "timm" and len(model.name) < len(first.get(model.family, "x" * 99)):
            first[model.family] = model.name
    return sorted(first.values())[::step]


def test_timm_builds_on_meta_across_families() -> None:
    """All 1371 of timm 1.0.31 do; building one of each of its 98 families takes a minute, so every sixth here."""
    names = one_of_some_families(step=6)
    assert len(names) > 13
    broken = [name for name in names if not is_on_meta(resolve(f"timm:{name}"))]
    assert broken == []


# --- transformers ---------------------------------------------------------------------------------------------------

#: model type -> parameters with default configuration, of the class that writes text or of the base model, as
#: published.
TRANSFORMERS = {
    "bert": 109_482_240,  # BERT-base, uncased: 110 M
    "gpt2": 124_439_808,  # GPT-2 small: 124 M
    "llama": 6_738_415_616,  # LLaMA-7B
    "t5": 60_506_624,  # T5-small: 60 M
}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_defaults_have_the_published_params(name: str, params: Count) -> None:
    pytest.importorskip("transformers")
    loaded = resolve(f"hf:{name}")
    assert params(loaded) == TRANSFORMERS[name]
    assert is_on_meta(loaded)


@pytest.mark.parametrize("name", [*TRANSFORMERS, "vit", "clip", "whisper", "bart", "mixtral", "wav2vec2", "detr"])
def test_transformers_take_the_inputs_made_for_them(name: str) -> None:
    pytest.importorskip("transformers")
    loaded = resolve(f"hf:{name}")
    outputs = output_of(loaded, batch=3)
    assert any(getattr(v, "shape", (0,))[0] == 3 for v in outputs.values())  # type: ignore[attr-defined]


def test_sequence_length_is_the_default_or_the_models_limit() -> None:
    pytest.importorskip("transformers")
    assert resolve("hf:bert").sizes["seq_len"] == 128
    assert resolve("hf:clip").sizes["seq_len"] == 77  # CLIP's text tower has 77 positions
    assert resolve("hf:bert", seq_len=384).inputs()[1]["input_ids"].shape == (1, 384)


#: As many weights as Llama 3 70B, in a quarter of its layers and twice its width.
WIDE_70B = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 16384,
    "intermediate_size": 57344,
    "num_hidden_layers": 20,
    "num_attention_heads": 128,
    "num_key_value_heads": 16,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}


def test_a_configuration_is_called_as_its_folder_from_wherever_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    folder = tmp_path / "small-llama"
    folder.mkdir()
    small = {**WIDE_70B, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    (folder / "config.json").write_text(json.dumps({**small, "num_key_value_heads": 2, "vocab_size": 100}))
    monkeypatch.chdir(folder)
    assert resolve("hf:config.json").name == resolve(f"hf:{folder}").name == "small-llama"


def test_seventy_billion_parameters_need_no_memory(tmp_path: Path) -> None:
    """More than 280 GB in fp32; building them takes less than 3 GiB, torch included."""
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text(json.dumps(WIDE_70B))
    code = (
        "import resource; from costmodel.sources import resolve\n"
        f"m = resolve('hf:{tmp_path}').module\n"
        "print(type(m).__name__, sum(p.numel() for p in m.parameters()),"
        " resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kind, count, peak_kib = result.stdout.split()
    hidden, inner, vocab, kv = 16384, 57344, 128256, 16 * 128
    layer = 2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * inner + 2 * hidden
    assert kind == "LlamaForCausalLM"
    assert int(count) == 20 * layer + 2 * vocab * hidden + hidden > 70e9
    assert int(peak_kib) < 3 * 2**20


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        ("{", ModelError, "no JSON"),
        ("{}", ModelError, "model_type"),
        ('{"model_type": "lama"}', UnknownModelError, "hf:llama"),
        ('{"model_type": "llama", "hidden_size": "wide"}', ModelError, "hidden_size"),
        ('{"model_type": "llama", "hidden_size": 100, "num_attention_heads": 7}', ModelError, "multiple"),
    ],
)
def test_broken_configurations(tmp_path: Path, content: str, error: type[CostmodelError], words: str) -> None:
    pytest.importorskip("transformers")
    path = tmp_path / "broken.json"
    path.write_text(content)
    with pytest.raises(error, match=words):
        resolve(f"hf:{path}")


def test_a_hub_name_is_never_fetched() -> None:
    pytest.importorskip("transformers")
    with pytest.raises(UnknownModelError, match="never asks a hub"):
        resolve("hf:meta-llama/Llama-2-7b")


def test_missing_transformers_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from costmodel.sources import huggingface

    monkeypatch.setattr(huggingface, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'torch-costmodel\[hf\]'"):
        resolve("hf:bert")


def test_hub_settings_of_the_process_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as constants

    from costmodel.sources.building import building

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    before = constants.HF_HUB_OFFLINE
    with building():
        assert constants.HF_HUB_OFFLINE
        assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert before == constants.HF_HUB_OFFLINE
    assert "HF_HUB_OFFLINE" not in os.environ


# --- your own code --------------------------------------------------------------------------------------------------

FACTORIES = """
import torch
from torch import nn

def bare(): return nn.Sequential(nn.Conv2d(5, 8, 3), nn.ReLU())
def pair(): return nn.Linear(4, 6), torch.zeros(7, 4)
def reads_values():
    width = int(torch.linspace(1, 4, 4).sum().item())
    return nn.Linear(width, 5), torch.zeros(2, width)
def tied():
    width = int(torch.ones(4).sum().item())
    a, b = nn.Linear(width, 4), nn.Linear(width, 4)
    b.weight = a.weight
    return nn.Sequential(a, b), torch.zeros(2, 4)
def raises():
    table = {}
    return table["missing"]
def number(): return 3
ready = nn.Linear(3, 2)
"""


@pytest.fixture
def factories(tmp_path: Path) -> Path:
    path = tmp_path / "factories.py"
    path.write_text(FACTORIES)
    return path


def test_a_factory_with_inputs(factories: Path) -> None:
    loaded = resolve(f"{factories}:pair")
    assert is_on_meta(loaded)
    assert loaded.sizes == {"batch": 7}
    assert output_of(loaded, batch=3).shape == (3, 6)  # type: ignore[attr-defined]


def test_a_factory_without_inputs_needs_a_shape(factories: Path) -> None:
    with pytest.raises(InputError, match="--input-shape"):
        resolve(f"{factories}:bare")
    assert resolve(f"{factories}:bare", input_shape=(5, 9, 8)).inputs()[0][0].shape == (1, 5, 9, 8)
    assert resolve(f"{factories}:bare", image_size=16).inputs()[0][0].shape == (1, 5, 16, 16)


def test_a_factory_that_reads_values_is_built_on_the_cpu_first(factories: Path, params: Count) -> None:
    loaded = resolve(f"{factories}:reads_values")
    assert loaded.module.in_features == 1 + 2 + 3 + 4
    assert "built on the CPU first" in loaded.notes[0]
    assert is_on_meta(loaded)
    assert params(resolve(f"{factories}:tied")) == 4 * 4 + 2 * 4  # one weight, two biases


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("raises", ModelError, ["factories.py, line 17", 'table["missing"]', "KeyError"]),
        ("number", ModelError, ["gives int", "(module, inputs)"]),
        ("pear", UnknownModelError, ["no 'pear'", "did you mean pair"]),
        ("", UnknownModelError, ["which part", ":pair"]),
    ],
)
def test_factory_errors(factories: Path, name: str, error: type[CostmodelError], words: list[str]) -> None:
    with pytest.raises(error) as raised:
        resolve(f"{factories}:{name}")
    for word in words:
        assert word in str(raised.value)


def test_files_that_are_missing_or_do_not_import(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match="no file"):
        resolve(f"{tmp_path}/absent.py:make")
    broken = tmp_path / "broken.py"
    broken.write_text("x = 1\ndef make(:\n")
    with pytest.raises(ModelError, match=r"broken\.py, line 2"):
        resolve(f"{broken}:make")


def test_a_module_that_stands_in_the_file_is_not_touched(factories: Path) -> None:
    loaded = resolve(f"{factories}:ready", input_shape=(3,))
    original = sys.modules["costmodel_user_factories"].ready
    assert original.training
    assert not original.weight.is_meta
    assert not loaded.module.training


def test_an_importable_factory() -> None:
    assert isinstance(resolve("torch.nn:Identity", input_shape=(3,)).module, nn.Identity)


class Scaled(nn.Module):
    """A convolution, a buffer and a constant made in forward: what exported programs bake a device into."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.register_buffer("scale", torch.ones(1))

    def forward(self, x: object) -> object:
        return self.conv(x) * self.scale + torch.arange(x.shape[-1], device=x.device)  # type: ignore[attr-defined]


def test_exported_programs(tmp_path: Path) -> None:
    example = (torch.zeros(4, 3, 8, 9),)
    torch.export.save(torch.export.export(Scaled(), example), tmp_path / "fixed.pt2")
    fixed = resolve(f"{tmp_path}/fixed.pt2")
    assert fixed.tensor_inputs[0].dims == (4, 3, 8, 9)
    assert "fixed batch" in fixed.notes[0]
    assert output_of(fixed).shape == (4, 8, 8, 9)  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="no size 'batch' to change"):
        fixed.inputs({"batch": 8})

    free = {"x": {0: torch.export.Dim("n"), 2: torch.export.Dim("h", min=2)}}
    torch.export.save(torch.export.export(Scaled(), example, dynamic_shapes=free), tmp_path / "free.pt2")
    loaded = resolve(f"{tmp_path}/free.pt2")
    assert loaded.tensor_inputs[0].dims == ("batch", 3, "height", 9)
    assert output_of(loaded, batch=5, height=12).shape == (5, 8, 12, 9)  # type: ignore[attr-defined]

    (tmp_path / "broken.pt2").write_text("no archive")
    with pytest.raises(ModelError, match="no program"):
        resolve(f"{tmp_path}/broken.pt2")


# --- a module of the caller -----------------------------------------------------------------------------------------


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, picture: object, others: object = None, scale: float = 1.0) -> object:
        return picture


def test_the_callers_module_is_handed_over_untouched() -> None:
    module = Two()
    before = {name: id(value) for name, value in module.state_dict(keep_vars=True).items()}
    loaded = from_module(module, torch.zeros(2, 3, 8, 8))
    assert loaded.module is module
    assert module.training
    assert before == {name: id(value) for name, value in module.state_dict(keep_vars=True).items()}


def test_inputs_of_every_kind_get_names() -> None:
    tokens = torch.zeros(2, 11, dtype=torch.int64)
    call = ((torch.zeros(2, 3, 8, 9),), {"others": {"ids": [tokens, tokens]}, "scale": 0.5})
    loaded = from_module(Two(), call)
    ids = TensorInput("others.ids.0", ("batch", "seq_len"), "int64")
    assert loaded.template[0] == (TensorInput("picture", ("batch", 3, "height", "width")),)
    assert loaded.template[1]["others"]["ids"][0] == ids
    assert loaded.template[1]["scale"] == 0.5
    assert loaded.sizes == {"batch": 2, "height": 8, "width": 9, "seq_len": 11}
    args, kwargs = loaded.inputs({"batch": 5, "seq_len": 3})
    assert args[0].shape == (5, 3, 8, 9)
    assert kwargs["others"]["ids"][1].shape == (5, 3)


@pytest.mark.parametrize(
    ("inputs", "args", "kwargs"),
    [
        (torch.zeros(2, 4), 1, 0),
        ((torch.zeros(2, 4), torch.zeros(2, 4)), 2, 0),
        ([torch.zeros(2, 4), torch.zeros(2, 4)], 1, 0),
        ({"picture": torch.zeros(2, 4)}, 0, 1),
        (((torch.zeros(2, 4),), {"others": 3}), 1, 1),
    ],
)
def test_forms_of_inputs(inputs: object, args: int, kwargs: int) -> None:
    template = from_module(Two(), inputs).template
    assert (len(template[0]), len(template[1])) == (args, kwargs)


def test_a_batch_that_inputs_disagree_on_stays_a_number() -> None:
    loaded = from_module(Two(), (torch.zeros(2, 4), torch.zeros(3, 4)))
    assert [t.dims for t in loaded.tensor_inputs] == [(2, 4), (3, 4)]
    assert "disagree" in loaded.notes[0]


def test_pictures_of_two_sizes_keep_the_second_as_numbers() -> None:
    loaded = from_module(Two(), (torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 4, 4)))
    assert [t.dims for t in loaded.tensor_inputs] == [("batch", 3, "height", "width"), ("batch", 3, 4, 4)]


@pytest.mark.parametrize(
    ("module", "arguments", "error", "words"),
    [
        (Two, {"inputs": torch.zeros(1)}, ModelError, "the class Two: call it"),
        (3, {"inputs": torch.zeros(1)}, ModelError, "not int"),
        (Two(), {}, InputError, "without inputs"),
        (Two(), {"inputs": torch.zeros(1), "input_shape": (3,)}, InputError, "not both"),
    ],
)
def test_modules_and_inputs_that_are_none(
    module: object, arguments: dict[str, object], error: type[CostmodelError], words: str
) -> None:
    with pytest.raises(error, match=words):
        from_module(module, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("request_", "full"),
    [
        ("resnet18", "timm:resnet18"),
        ("vit_b_16", "torchvision:vit_b_16"),
        ("mobilenetv2", "timm:mobilenetv2_100"),
        ("zoo:nin", "zoo:nin"),
        ("net.py:make", "net.py:make"),
    ],
)
def test_a_full_name_says_its_source(request_: str, full: str) -> None:
    assert full_name(request_) == full


@pytest.mark.parametrize("request_", ["timm:swin_tiny_patch4_window7_224", "torchvision:resnet18", "zoo:im2col_conv"])
def test_real_weights_make_modules_that_run(request_: str) -> None:
    with real_weights():
        loaded = resolve(request_)
    tensors = [*loaded.module.parameters(), *loaded.module.buffers()]
    assert {t.device.type for t in tensors} == {"cpu"}
    assert all(torch.isfinite(t.float()).all() for t in tensors)
    assert {t.device.type for t in resolve(request_).module.parameters()} == {"meta"}  # and only inside
