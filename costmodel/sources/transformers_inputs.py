"""What the forward pass of a model of transformers takes, from its configuration alone.

A model names its main input (``main_input_name``); what else it cannot do without follows from its kind: a decoder
beside an encoder, two towers, boxes of words. Preprocessors fix how audio and pictures arrive, and what they need to
know of a model stands in its configuration: mel bins, image sizes. An input whose shape stands nowhere is refused by
name. A language model that also takes pictures or sound is given text alone where they are packed into rows whose
number a preprocessor decides.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from costmodel.errors import InputError, librarian
from costmodel.execution import Phase
from costmodel.sources.generation import DEFAULT_CONTEXT, accepted_by, generating_class, step_inputs
from costmodel.sources.loaded import TensorInput
from costmodel.sources.registry import Options

__all__ = ["inputs_of", "longest", "text_part", "what_is_left_out"]

#: Tokens, where neither the request nor the configuration's own limit says less.
DEFAULT_SEQ_LEN = 128
#: Waveform models: one second at 16 kHz [samples].
DEFAULT_AUDIO_SAMPLES = 16_000
#: Frames of features, where a model takes any number: ten seconds, one each 10 ms.
DEFAULT_AUDIO_FRAMES = 1_000
#: Pixels of an image, where the configuration names none.
DEFAULT_IMAGE_SIZE = 224
#: Regions of an image that a detector looks at, as LXMERT was trained with (Tan and Bansal, 2019, section 3.2).
_REGIONS = 36
#: Where configurations keep the longest sequence they take [tokens].
_LENGTH_KEYS = ("max_position_embeddings", "n_positions", "max_target_positions", "max_seq_len", "n_ctx")
#: Where configurations keep how many tokens an image is among those of its text.
_IMAGE_TOKENS = ("image_seq_length", "mm_tokens_per_image", "image_seq_len", "num_image_tokens")
#: Arguments that say how many rows of a packed input belong to which image: made by a preprocessor, read by the host.
_PACKED = (
    "image_grid_thw", "grid_thw", "image_sizes", "image_spatial_shapes", "spatial_shapes", "image_grid_hws",
    "image_grids", "pixel_attention_mask", "aspect_ratio_ids", "num_patches", "patch_sizes", "target_sizes",
)  # fmt: skip
#: Main inputs other than tokens, in the order in which they are looked for.
_OTHERS = ("pixel_values", "input_features", "input_values")

Inputs = tuple[dict[str, Any], dict[str, int]]


def inputs_of(model: Any, config: Any, options: Options) -> Inputs:
    """(keyword arguments, sizes) that the model's forward pass needs, in the phase asked for.

    Raises InputError for more tokens than the model has positions, and for an input whose shape is not known.
    """
    if not _has_forward(model):
        raise InputError(
            librarian(
                f"{type(model).__name__} has no forward pass of its own, it runs its parts one after the other",
                there_is=[f"{name} ({type(part).__name__})" for name, part in model.named_children()],
                do="Build the module and analyze a part: costmodel.analyze(module.PART, {...}, hw=...).",
            )
        )
    inputs, sizes = _written(model, config, options) if options.phase.generates else _whole(model, config, options)
    _check_complete(model, inputs, options.phase)
    return _in_own_dtype(model, inputs), sizes


def _in_own_dtype(model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs as wide as the model holds its weights, as callers hand them over: not every model converts them."""
    own = str(model.dtype).removeprefix("torch.")

    def typed(value: Any) -> Any:
        floats = isinstance(value, TensorInput) and value.dtype.startswith("float")
        return replace(value, dtype=own) if floats else value

    return {name: typed(value) for name, value in inputs.items()}


def _has_forward(model: Any) -> bool:
    from torch import nn

    return type(model).forward is not nn.Module.forward


def _whole(model: Any, config: Any, options: Options) -> Inputs:
    accepted, text = accepted_by(model), text_part(config)
    main = _main_input(model, accepted)
    inputs, sizes = _main(main, config, options)
    if main == "input_ids" and _takes_pictures(accepted, config):
        inputs["pixel_values"], image = _pixels(getattr(config, "vision_config", config), options)
        sizes |= image
    if "high_res_pixel_values" in accepted and "pixel_values" in inputs:
        inputs["high_res_pixel_values"] = _high_resolution(config)
    if main != "input_ids" and "input_ids" in accepted and (_is_dual(config) or "input_ids" in _needed(model)):
        inputs["input_ids"] = _tokens("input_ids")
    if config.is_encoder_decoder and "decoder_input_ids" in accepted:
        inputs["decoder_input_ids"] = _tokens("decoder_input_ids")
    if "input_ids" in inputs:
        inputs |= _boxes(accepted, config)
        inputs |= _regions(accepted, config)
    if hasattr(config, "audio_config") and hasattr(config.audio_config, "spec_size"):
        inputs["input_features"], sound = _spectrogram(config.audio_config)
        sizes |= sound
    if "use_cache" in accepted:
        inputs["use_cache"] = False
    if any(isinstance(t, TensorInput) and "seq_len" in t.dims for t in inputs.values()):
        sizes["seq_len"] = _seq_len(text, options, _image_tokens(config) if "pixel_values" in inputs else 0)
    return inputs, sizes


def _written(model: Any, config: Any, options: Options) -> Inputs:
    """(keyword arguments, sizes) of a prompt or of one step of writing."""
    text = text_part(config)
    positions, decodes = longest(text), options.phase is Phase.DECODE
    context = options.context or 0
    if decodes and not context:
        usual = DEFAULT_CONTEXT if config.is_encoder_decoder else options.seq_len or DEFAULT_CONTEXT
        context = min(usual, (positions or usual + 1) - 1)
    prompt = _seq_len(text, options) if not decodes or config.is_encoder_decoder else 1
    last = context + (1 if decodes or config.is_encoder_decoder else prompt)
    if positions and last > positions:
        told = f"context {context} and what comes after it pass the {positions} positions of this configuration"
        raise InputError(told)
    read = _main(_main_input(model, accepted_by(model)), config, options) if config.is_encoder_decoder else ({}, {})
    if "input_ids" in read[0]:
        read[1]["seq_len"] = prompt
        read[0].update(_boxes(accepted_by(model), config))
    return step_inputs(model, options.phase, prompt, context, read)


def _main_input(model: Any, accepted: set[str]) -> str:
    """The input that a model runs on: the one that it names, where its forward pass takes that."""
    named = model.main_input_name
    named = named if isinstance(named, str) else named[0]
    return named if named in accepted else next((name for name in _OTHERS if name in accepted), named)


def _main(name: str, config: Any, options: Options) -> Inputs:
    """The main input with its sizes; that of text is a number of tokens, which the caller knows."""
    if name == "pixel_values":
        pixels, sizes = _pixels(config, options)
        return {name: pixels}, sizes
    if name == "input_features":
        return _features(config)
    if name == "input_values" and hasattr(config, "num_mel_bins") and hasattr(config, "max_length"):
        return {name: TensorInput(name, ("batch", config.max_length, config.num_mel_bins))}, {}  # a spectrogram
    if name == "input_values":
        return {name: TensorInput(name, ("batch", "samples"))}, {"samples": DEFAULT_AUDIO_SAMPLES}
    return {"input_ids": _tokens("input_ids")}, {}


def _is_dual(config: Any) -> bool:
    """Whether the model has one tower for text and one for images (CLIP and its kin)."""
    return all(getattr(config, part, None) is not None for part in ("text_config", "vision_config"))


def _takes_pictures(accepted: set[str], config: Any) -> bool:
    """Whether a model of text and images is given an image: one whose pixels are a picture, not packed rows.

    Raises InputError where images are packed and the model does not write text, which it could do without one.
    """
    if "pixel_values" not in accepted or not (_is_dual(config) or _in_one_tower(config)):
        return False
    packed = [name for name in _PACKED if name in accepted and not (name == "image_sizes" and _one_size(config))]
    if packed and not _writes(config):
        raise _unknown("pixel_values", *packed)
    return not packed


def _in_one_tower(config: Any) -> bool:
    """Whether one encoder reads patches and tokens in one row (ViLT)."""
    return hasattr(config, "image_size") and not config.is_encoder_decoder


def _one_size(config: Any) -> bool:
    """Whether images have the size that the tower is made for, where sizes may be told (LLaVA): not those of towers
    for any size, nor those cut into tiles."""
    tower = config.vision_config
    return (
        hasattr(tower, "image_size") and tower.model_type != "pixtral" and not hasattr(config, "image_grid_pinpoints")
    )


def _writes(config: Any) -> bool:
    import transformers

    return generating_class(transformers, config, Phase.PREFILL) is not None


def what_is_left_out(model: Any, config: Any, inputs: Mapping[str, Any]) -> list[str]:
    """A note on pictures and sound that a model can take and is not given, for a report; empty where there are none."""
    kinds = {"pixel_values": "pictures", "input_features": "sound", "input_values": "sound", "audio_values": "sound"}
    kinds |= {"pixel_values_videos": "videos", "input_audio_embeds": "sound", "image_pixel_values": "pictures"}
    accepted = accepted_by(model)
    left = dict.fromkeys(kind for name, kind in kinds.items() if name in accepted and name not in inputs)
    return [f"text alone, without {' and '.join(left)}"] if left and "input_ids" in inputs else []


def _image_tokens(config: Any) -> int:
    """Tokens of the text that stand for an image, where the configuration says how many; else 0."""
    found = [n for n in (getattr(config, key, None) for key in _IMAGE_TOKENS) if isinstance(n, int)]
    return found[0] if found else 0


def _tokens(name: str) -> TensorInput:
    return TensorInput(name, ("batch", "seq_len"), "int64")


def _boxes(accepted: set[str], config: Any) -> dict[str, TensorInput]:
    """Where each word stands on its page, for models that cannot do without: two corners, as shares of the page, or as
    many numbers as the configuration says. Others take a page without places."""
    numbers = getattr(config, "dim_bbox", None) or (4 if config.is_encoder_decoder else None)
    if "bbox" not in accepted or numbers is None:
        return {}
    return {"bbox": TensorInput("bbox", ("batch", "seq_len", numbers))}


def _regions(accepted: set[str], config: Any) -> dict[str, TensorInput]:
    """What a detector says of an image's regions, and where they are (LXMERT), one row each."""
    kinds = {"visual_feats": "visual_feat_dim", "visual_pos": "visual_pos_dim"}
    if not (set(kinds) <= accepted and all(hasattr(config, size) for size in kinds.values())):
        return {}
    return {name: TensorInput(name, ("batch", _REGIONS, getattr(config, size))) for name, size in kinds.items()}


def _spectrogram(config: Any) -> tuple[TensorInput, dict[str, int]]:
    """Log-mel spectrogram as a picture of one channel (CLAP), for a tower beside that of text."""
    dims = ("batch", 1, "frames", config.num_mel_bins)
    return TensorInput("input_features", dims), {"frames": DEFAULT_AUDIO_FRAMES}


def _pixels(config: Any, options: Options) -> tuple[TensorInput, dict[str, int]]:
    size = options.image_size or getattr(config, "image_size", None) or DEFAULT_IMAGE_SIZE
    if isinstance(size, Mapping):
        size = (size["height"], size["width"])
    height, width = (size, size) if isinstance(size, int) else size
    channels = getattr(config, "num_channels", None) or getattr(config, "in_channels", None) or 3
    frames = getattr(config, "num_frames", None)  # of a video, whose places the model numbers
    before = ("batch", frames) if isinstance(frames, int) else ("batch",)
    dims = (*before, channels, "height", "width")
    return TensorInput("pixel_values", dims), {"height": height, "width": width}


def _high_resolution(config: Any) -> TensorInput:
    """The same picture for a second tower, which has a size of its own."""
    tower = config.high_res_vision_config
    size = tower.image_size
    return TensorInput("high_res_pixel_values", ("batch", getattr(tower, "num_channels", 3), size, size))


def _features(config: Any) -> Inputs:
    """Log-mel spectrogram. Of Whisper the whole window that the encoder's positions are made for (two frames a
    position), bins first; of other encoders any number of frames, bins last."""
    name = "input_features"
    if hasattr(config, "max_source_positions") and hasattr(config, "num_mel_bins"):
        return {name: TensorInput(name, ("batch", config.num_mel_bins, 2 * config.max_source_positions))}, {}
    for part in (config, getattr(config, "encoder_config", None), getattr(config, "audio_config", None)):
        for key in ("num_mel_bins", "input_feat_per_channel", "feature_projection_input_dim"):
            if isinstance(bins := getattr(part, key, None), int):
                return {name: TensorInput(name, ("batch", "frames", bins))}, {"frames": DEFAULT_AUDIO_FRAMES}
    raise _unknown(name)


def _unknown(*names: str) -> InputError:
    which = " and ".join(names)
    return InputError(
        librarian(
            f"the shape of this model's {which} is not known from its configuration",
            do="Build the module and give its inputs: costmodel.analyze(module, {...}, hw=...), or a file.py:factory "
            "that returns (module, inputs).",
        )
    )


def _needed(model: Any) -> list[str]:
    """Arguments of a model's forward pass without a default."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(model.forward).parameters.values()
    return [p.name for p in parameters if p.kind in kinds and p.default is inspect.Parameter.empty]


def _check_complete(model: Any, inputs: Mapping[str, Any], phase: Phase) -> None:
    """Raise InputError for arguments without a default that no shape is known of."""
    missing = [name for name in _needed(model) if name not in inputs]
    if missing and phase.generates:
        raise InputError(
            librarian(
                f"{type(model).__name__} reads {' and '.join(missing)} with every token that it writes",
                there_is=[Phase.INFERENCE.value],
                do="An ordinary forward pass can be analyzed.",
            )
        )
    if missing:
        raise _unknown(*missing)


def text_part(config: Any) -> Any:
    """The configuration of what reads and writes text; the whole where several parts do."""
    try:
        return config.get_text_config()
    except ValueError:
        return config


def longest(config: Any) -> int | None:
    """Positions that the configuration has, where it says so."""
    limits = [n for n in (getattr(config, key, None) for key in _LENGTH_KEYS) if isinstance(n, int) and n > 0]
    return min(limits, default=None)


def _seq_len(config: Any, options: Options, image: int = 0) -> int:
    """Tokens of the text, the ``image`` tokens in it included."""
    positions = longest(config)
    if options.seq_len and positions and options.seq_len > positions:
        raise InputError(f"seq_len {options.seq_len} is longer than the {positions} positions of this configuration")
    usual = image + DEFAULT_SEQ_LEN
    return options.seq_len or min(usual, positions or usual)
