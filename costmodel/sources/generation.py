"""Text generation with models of transformers: which class generates, what a prompt and a step of decoding take.

A step of decoding needs the cache that the tokens before it have left. Which tensors that are is the model's own
matter: keys and values of each layer, fewer of layers with a sliding window, latent vectors (MLA), states of recurrent
layers. So the model makes them itself: before a step is recorded its copy on the meta device runs over ``context``
tokens, and what lies in the cache afterwards are inputs of the step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from costmodel.errors import ModelError, librarian
from costmodel.execution import Phase
from costmodel.sources.loaded import TensorInput
from costmodel.sources.transformers_kernels import one_token_scans
from costmodel.tensor import CACHED

__all__ = ["DEFAULT_CONTEXT", "PROMPT", "after_prompt", "cached_tensors", "generating_class", "step_inputs"]

#: Tokens in the cache where nobody says how many.
DEFAULT_CONTEXT = 1024
#: The name of the input that stands for the tokens whose cache a step finds.
PROMPT = "prompt"
#: What encoders read.
ENCODER_INPUTS = frozenset({"input_ids", "bbox", "input_features", "input_values", "pixel_values"})
#: Where outputs of transformers keep what the next step needs, and the argument that takes it.
_CACHES = ("past_key_values", "cache_params", "state")


def generating_class(transformers: Any, config: Any, phase: Phase) -> Any:
    """The class that writes text with this configuration, or None where its type has none.

    A decoder's class with a language-model head, whatever the run is for; for prompts and steps of decoding also that
    of a model with an encoder, or with an image tower, of which the text runs. Types that are trained to fill masks
    (BERT) are none, unless their configuration says ``is_decoder``.
    """
    from transformers.models.auto import modeling_auto as auto

    kind, reads = config.model_type, bool(getattr(config, "is_encoder_decoder", False))
    tables = [] if reads else ["MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"]  # there the decoder alone
    if phase.generates:
        tables += ["MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES", "MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES"]
        tables += ["MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES", "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES"]
    masked = kind in getattr(auto, "MODEL_FOR_MASKED_LM_MAPPING_NAMES", {})
    if masked and not reads and not getattr(config, "is_decoder", False):
        tables.remove("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES")
    for table in tables:
        names = getattr(auto, table, {}).get(kind)
        for name in (names,) if isinstance(names, str) else names or ():
            if (found := getattr(transformers, name, None)) is not None:
                return found
    return None


def step_inputs(
    model: Any,
    phase: Phase,
    seq_len: int,
    context: int,
    encoder: tuple[Mapping[str, TensorInput], Mapping[str, int]] = ({}, {}),
) -> tuple[dict[str, Any], dict[str, int]]:
    """(keyword arguments, sizes) of a prompt or of one step of decoding.

    A prompt of ``seq_len`` tokens puts out the logits of its last one, as ``generate`` asks for; a ``context`` above 0
    is what lies in the cache before it. A step takes one token of each sequence. A model with an ``encoder`` is given
    what that reads, with its sizes, and its decoder writes.
    """
    accepted = accepted_by(model)
    inputs: dict[str, Any] = {"use_cache": True} if "use_cache" in accepted else {}
    if "logits_to_keep" in accepted:
        inputs["logits_to_keep"] = 1
    read, sizes = dict(encoder[0]), dict(encoder[1])
    new: int | str = 1 if phase is Phase.DECODE or read else "seq_len"
    if new == "seq_len":
        sizes["seq_len"] = seq_len
    name = "decoder_input_ids" if read else "input_ids"
    inputs |= {**read, name: TensorInput(name, ("batch", new), "int64")}
    if context:
        inputs[PROMPT] = TensorInput(PROMPT, ("batch", "context"), "int64")
        sizes["context"] = context
    return inputs, sizes


def accepted_by(model: Any) -> set[str]:
    """Names of the arguments of a model's forward pass."""
    import inspect

    return set(inspect.signature(model.forward).parameters)


def after_prompt(model: Any, kwargs: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[str, Any]]]:
    """Arguments of a step after a prompt, and the tensors of the cache that the prompt has left, with names.

    ``kwargs`` hold the step's arguments and the prompt, over which the model runs first. Raises ModelError where
    nothing is left of it.
    """
    from transformers.modeling_outputs import BaseModelOutput

    step = dict(kwargs)
    prompt = step.pop(PROMPT)
    if "decoder_input_ids" in step:
        ran = model(**{**step, "decoder_input_ids": prompt})
        for name in ENCODER_INPUTS & set(step):
            del step[name]
        step["encoder_outputs"] = BaseModelOutput(last_hidden_state=ran.encoder_last_hidden_state)
        step["encoder_outputs"].attention_mask = None  # which encoders that shorten their input put out too
    else:
        with one_token_scans(model):
            ran = _over(model, prompt, {name: value for name, value in step.items() if name != "input_ids"})
    for name in _CACHES:
        cache = getattr(ran, name, None)
        if cache is not None:
            step[name] = cache
            named = [(f"{CACHED}{path}", tensor) for path, tensor in cached_tensors(cache)]
            if "encoder_outputs" in step:
                named.append(("encoder_outputs", step["encoder_outputs"][0]))
            return step, named
    raise ModelError(
        librarian(
            f"{type(model).__name__} hands out no cache of the tokens that it has seen",
            do="its configuration says is_decoder=False: with True it does"
            if getattr(model.config, "is_decoder", None) is False
            else "phase='prefill' or an ordinary forward pass can be analyzed",
        )
    )


#: Tokens after which the states of a recurrent layer are what they are after any number.
_FEW = 8


def _over(model: Any, prompt: Any, arguments: dict[str, Any]) -> Any:
    """The model's output over a prompt; of models whose states do not grow, over its first few tokens."""
    if getattr(model, "_is_stateful", False) and prompt.shape[1] > _FEW:
        ran = model(input_ids=prompt[:, :_FEW], **arguments)
        caches = [getattr(ran, name, None) for name in _CACHES]
        sizes = {size for cache in caches for _, state in cached_tensors(cache) for size in state.shape}
        if _FEW not in sizes:
            return ran
    return model(input_ids=prompt, **arguments)


def cached_tensors(cache: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every tensor with dimensions that a cache object holds, with the path of attributes that leads to it, each once.

    Caches of encoder and decoder, of layers, and lists of them are walked; ``3.keys`` are the keys of layer 3.
    """
    import torch

    seen: set[int] = set()

    def walk(value: Any, at: str, depth: int) -> Iterator[tuple[str, Any]]:
        if isinstance(value, torch.Tensor):
            if id(value) not in seen and value.numel() and value.dim():
                seen.add(id(value))
                yield at, value
        elif isinstance(value, (list, tuple)):
            for index, item in enumerate(value):
                yield from walk(item, f"{at}.{index}".lstrip("."), depth)
        elif isinstance(value, dict):
            for key, item in value.items():
                yield from walk(item, f"{at}.{key}".lstrip("."), depth)
        elif hasattr(value, "__dict__") and depth < 4 and not isinstance(value, torch.nn.Module):
            for name, item in vars(value).items():
                inner = at if name == "layers" else f"{at}.{name}".lstrip(".")
                yield from walk(item, inner, depth + 1)

    yield from walk(cache, path, 0)
