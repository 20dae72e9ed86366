"""The first weights of new token mixers: drawn as their class does, or made of the attention that they replace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedConfig

from ..errors import LayerTracerError
from .blueprint import Blueprint, NativeClass
from .donors import Donor
from .mappings.base import LAYERS, MixerInputs
from .recipe import MixerKind, MixerReplacement
from .safetensors_io import NewTensor
from .streaming import streamed
from .verify import logits


@dataclass(frozen=True)
class Watched:
    """What was seen of the attention of one layer, on a few tokens.

    Args:
        given (`Tensor`): What went in, of shape `(tokens, hidden_size)`.
        made (`Tensor`): What the heads put out, before the output projection, of shape `(tokens, heads * head_dim)`.
    """

    given: Tensor
    made: Tensor


def watch_attention(
    source: Donor, replaced: list[int], tokens: Tensor, dtype: torch.dtype, scratch: Path
) -> dict[int, Watched]:
    """What the donor's attention does in the layers that are replaced.

    Args:
        source ([`Donor`]): The model with all its attention.
        replaced (`list[int]`): Layers.
        tokens (`Tensor`): Token ids of shape `(1, tokens)`.
        dtype (`torch.dtype`): Data type to run in.
        scratch (`Path`): Folder for what transformers converts on the way.

    Returns:
        `dict[int, Watched]`: By layer.
    """
    seen: dict[tuple[int, str], Tensor] = {}

    def keep(index: int, what: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple) -> None:
            seen[index, what] = args[0].detach().float().flatten(0, 1)

        return hook

    with streamed(source, dtype, scratch) as model:
        layers = model.get_submodule(source.parts.layers_path)
        for index in replaced:
            attention = layers[index].self_attn
            attention.q_proj.register_forward_pre_hook(keep(index, "given"))
            attention.o_proj.register_forward_pre_hook(keep(index, "made"))
        logits(model, tokens)
    return {index: Watched(seen[index, "given"], seen[index, "made"]) for index in replaced}


def new_mixer(
    index: int, mixer: MixerReplacement, native: NativeClass, source: Donor, watched: Watched, plan: Blueprint
) -> list[NewTensor]:
    """The tensors of a new mixer.

    Args:
        index (`int`): The layer.
        mixer ([`MixerReplacement`]): Its kind and how it begins.
        native ([`NativeClass`]): The class of the hybrid.
        source ([`Donor`]): The model with all its attention.
        watched ([`Watched`]): What that attention does.
        plan ([`Blueprint`]): What is built.

    Returns:
        `list[NewTensor]`: The tensors, sorted by name.
    """
    module = fresh_mixer(native, mixer.kind, index, plan.recipe.seed)
    name = f"{LAYERS}{index}.{native.mapping.mixers[mixer.kind].name}"
    if mixer.init == "from_attention":
        _follow_attention(module, index, native, mixer.kind, source, watched, plan.dtype)
    return [
        NewTensor(f"{name}.{what}", plan.dtype, tuple(tensor.shape), make=partial(_cast, tensor, plan.dtype))
        for what, tensor in sorted(_weights(module).items())
    ]


def _follow_attention(
    module: nn.Module,
    index: int,
    native: NativeClass,
    kind: MixerKind,
    source: Donor,
    watched: Watched,
    dtype: torch.dtype,
) -> None:
    """Gives a new mixer the attention's projections, and each head the size that comes closest to what it put out."""
    prefix = f"{native.mapping.attention}."
    # In the data type of the hybrid first, as that is what the attention computed with.
    attention = {
        what.removeprefix(prefix): tensor.load().to(dtype).float()
        for what, tensor in source.layer_tensors(index).items()
        if what.startswith(prefix)
    }
    heads = source.text_config.num_attention_heads
    groups = heads // source.text_config.num_key_value_heads
    fresh = _weights(module)
    inputs = MixerInputs(fresh, attention, torch.ones(heads), watched.given.mean(0), heads, groups)
    init = native.mapping.mixers[kind].init
    weights = init(inputs)
    if wrong := _shapes(weights).items() ^ _shapes(fresh).items():
        raise LayerTracerError(
            f"The initial weights do not fit the {kind} of layer {index}: {sorted(what for what, _ in wrong)[0]}."
        )
    module.load_state_dict(weights)
    module.load_state_dict(init(replace(inputs, scale=_closest_scale(module, watched, heads))))


def _closest_scale(module: nn.Module, watched: Watched, heads: int) -> Tensor:
    """What to multiply each head of a mixer with, so that its output has the least squared error to the attention's."""
    seen: list[Tensor] = []
    handle = module.get_submodule("out_proj").register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        module(hidden_states=watched.given[None])
    handle.remove()
    ours, theirs = (states.reshape(len(watched.given), heads, -1) for states in (seen[0], watched.made))
    return (ours * theirs).sum((0, 2)) / ours.square().sum((0, 2)).clamp_min(1e-12)


def fresh_mixer(native: NativeClass, kind: MixerKind, index: int, seed: int) -> nn.Module:
    """A new mixer as its class draws it, in float32.

    Args:
        native ([`NativeClass`]): The class.
        kind (`str`): The kind of the mixer.
        index (`int`): The layer, of which the draw depends as on the seed.
        seed (`int`): The recipe's.

    Returns:
        `nn.Module`: The mixer.
    """
    content = native.config.to_dict()
    content |= {**native.mapping.sizes, "num_hidden_layers": 1, "layer_types": ["linear_attention"]}
    content |= {"vocab_size": 8, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
    if "mixer_types" in content:
        content["mixer_types"] = [kind]
    small: PreTrainedConfig = type(native.config).from_dict(content)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed * 100_003 + index)
        model = AutoModelForCausalLM.from_config(small, dtype=torch.float32).eval()
    return model.get_submodule(f"{LAYERS}0.{native.mapping.mixers[kind].name}")


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def _shapes(weights: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in weights.items()}


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype)
