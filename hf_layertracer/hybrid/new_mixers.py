"""The first weights of new token mixers: drawn as their class does, or made of the attention that they replace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedConfig

from ..errors import LayerTracerError
from .blueprint import Blueprint, NativeClass
from .donors import Donor
from .mappings.base import LAYERS, MixerInputs
from .recipe import MixerReplacement
from .safetensors_io import NewTensor
from .verify import logits, streamed


@dataclass(frozen=True)
class Watched:
    """What was seen of the attention of one layer.

    Args:
        mean_input (`Tensor`): Mean of what went in, of shape `(hidden_size,)`.
        scale (`Tensor`): Root mean square of what each head put out, of shape `(heads,)`.
    """

    mean_input: Tensor
    scale: Tensor


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
    heads = source.text_config.num_attention_heads
    inputs: dict[int, Tensor] = {}
    scales: dict[int, Tensor] = {}

    def keep(index: int, store: dict[int, Tensor], measure: Callable[[Tensor], Tensor]) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple) -> None:
            store[index] = measure(args[0].detach().float())

        return hook

    def by_head(states: Tensor) -> Tensor:
        return states.view(-1, heads, states.shape[-1] // heads).square().mean((0, 2)).sqrt()

    with streamed(source.folder, dtype, scratch) as model:
        layers = model.get_submodule(source.parts.layers_path)
        for index in replaced:
            attention = layers[index].self_attn
            attention.q_proj.register_forward_pre_hook(keep(index, inputs, lambda states: states.mean((0, 1))))
            attention.o_proj.register_forward_pre_hook(keep(index, scales, by_head))
        logits(model, tokens)
    return {index: Watched(inputs[index], scales[index]) for index in replaced}


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
    weights = fresh_mixer(native, index, plan.recipe.seed)
    expected = {name: tensor.shape for name, tensor in weights.items()}
    if mixer.init == "from_attention":
        prefix = f"{native.mapping.attention}."
        stored = source.layer_tensors(index)
        # In the data type of the hybrid first, as that is what the attention computed with.
        attention = {
            name.removeprefix(prefix): tensor.load().to(plan.dtype).float()
            for name, tensor in stored.items()
            if name.startswith(prefix)
        }
        heads = source.text_config.num_attention_heads
        groups = heads // source.text_config.num_key_value_heads
        weights = native.mapping.init(
            MixerInputs(weights, attention, watched.scale, watched.mean_input, heads, groups)
        )
    name = f"{LAYERS}{index}.{native.mapping.mixer}"
    if wrong := {what: tensor.shape for what, tensor in weights.items()}.items() ^ expected.items():
        raise LayerTracerError(f"The initial weights do not fit {name}: {sorted(what for what, _ in wrong)[0]}.")
    return [
        NewTensor(f"{name}.{what}", plan.dtype, tuple(tensor.shape), make=lambda tensor=tensor: tensor.to(plan.dtype))
        for what, tensor in sorted(weights.items())
    ]


def fresh_mixer(native: NativeClass, index: int, seed: int) -> dict[str, Tensor]:
    """A new mixer as its class draws it, by parameter names in float32.

    Args:
        native ([`NativeClass`]): The class.
        index (`int`): The layer, of which the draw depends as on the seed.
        seed (`int`): The recipe's.

    Returns:
        `dict[str, Tensor]`: Its weights.
    """
    content = native.config.to_dict()
    content |= {**native.mapping.sizes, "num_hidden_layers": 1, "layer_types": ["linear_attention"]}
    content |= {"vocab_size": 8, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
    small: PreTrainedConfig = type(native.config).from_dict(content)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed * 100_003 + index)
        model = AutoModelForCausalLM.from_config(small, dtype=torch.float32)
    mixer = model.get_submodule(f"{LAYERS}0.{native.mapping.mixer}")
    return {name: parameter.detach() for name, parameter in mixer.named_parameters()}
