"""Which module of a hybrid stands for which attention of its donor, and what goes through them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ...errors import LayerTracerError
from ...modeling import find_parts


@dataclass(frozen=True)
class MixerPair:
    """A new mixer and the attention that it replaced.

    Args:
        layer (`int`): Their layer.
        mixer (`nn.Module`): In the hybrid.
        attention (`nn.Module`): In the donor.
    """

    layer: int
    mixer: nn.Module
    attention: nn.Module


def mixer_pairs(hybrid: nn.Module, donor: nn.Module) -> list[MixerPair]:
    """Finds the new mixers of a hybrid by comparing its layers with the donor's.

    Args:
        hybrid (`nn.Module`): A model with new mixers.
        donor (`nn.Module`): The model that it was before.

    Returns:
        `list[MixerPair]`: One a replaced layer.

    Raises:
        LayerTracerError: The models have not the same layers, or no mixer is new.
    """
    ours, theirs = find_parts(hybrid), find_parts(donor)
    if ours.num_layers != theirs.num_layers:
        raise LayerTracerError(f"The hybrid has {ours.num_layers} layers and its donor {theirs.num_layers}.")
    pairs = []
    for index, (layer, before) in enumerate(zip(ours.layers, theirs.layers, strict=True)):
        mixers = dict(layer.named_children())
        old = {name: module for name, module in before.named_children() if name.endswith("attn")}
        if not set(old) & set(mixers):
            new = [name for name in mixers if name in ("mamba", "linear_attn")]
            if len(new) != 1 or len(old) != 1:
                raise LayerTracerError(f"Layer {index}: it does not show which module replaced the attention.")
            pairs.append(MixerPair(index, mixers[new[0]], next(iter(old.values()))))
    if not pairs:
        raise LayerTracerError("No token mixer of this model is new: there is nothing to heal.")
    return pairs


def hidden_argument(args: tuple, kwargs: Mapping[str, Any]) -> Tensor:
    """The hidden states that a module is called with."""
    return args[0] if args else kwargs["hidden_states"]


def first(output: Any) -> Tensor:
    """The hidden states that a module returns."""
    return output[0] if isinstance(output, tuple) else output


@contextmanager
def seen_attention(pairs: list[MixerPair], inputs: dict[int, Tensor], outputs: dict[int, Tensor]) -> Iterator[None]:
    """Keeps what goes into the donor's attention and what comes out, by layer, while it runs."""

    def keep(layer: int):
        def hook(_: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
            inputs[layer], outputs[layer] = hidden_argument(args, kwargs), first(output)

        return hook

    handles = [pair.attention.register_forward_hook(keep(pair.layer), with_kwargs=True) for pair in pairs]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def forced_mixers(pairs: list[MixerPair], inputs: dict[int, Tensor], outputs: dict[int, Tensor]) -> Iterator[None]:
    """Gives each new mixer the donor's input instead of its own, and keeps what it makes of it, while the hybrid runs."""

    def enter(layer: int):
        def hook(_: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
            if args:
                return (inputs[layer], *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": inputs[layer]}

        return hook

    def leave(layer: int):
        def hook(_: nn.Module, args: tuple, output: Any) -> None:
            outputs[layer] = first(output)

        return hook

    handles = []
    for pair in pairs:
        handles.append(pair.mixer.register_forward_pre_hook(enter(pair.layer), with_kwargs=True))
        handles.append(pair.mixer.register_forward_hook(leave(pair.layer)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
