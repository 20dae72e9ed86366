"""Mamba2 from attention, after "The Mamba in the Llama" (arXiv 2408.15237): x from values, B from keys, C from queries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .common import OPEN_GATE, identity_convolution, repeated, step_bias


if TYPE_CHECKING:
    from ..mappings.base import MixerInputs


def mamba2_from_attention(inputs: MixerInputs) -> dict[str, Tensor]:
    """A Mamba2 mixer that takes an attention's projections over.

    `in_proj` is [z; x; B; C; dt]. The gate z is open whatever goes in, the convolution passes, the steps depend on no
    input, and the norm gives each head its size.

    Args:
        inputs ([`MixerInputs`]): The attention and the mixer as its class begins.

    Returns:
        `dict[str, Tensor]`: The mixer's weights.
    """
    fresh, attention, heads = inputs.fresh, inputs.attention, inputs.heads
    query = attention["q_proj.weight"]
    width, hidden = query.shape
    parts: dict[str, list[Tensor]] = {"weight": [], "bias": []}
    for what, empty in (("weight", query.new_zeros(width, hidden)), ("bias", query.new_zeros(width))):
        key, value = (
            repeated(attention.get(f"{name}.{what}", empty[: width // inputs.groups]), heads, inputs.groups)
            for name in ("k_proj", "v_proj")
        )
        steps = empty[:heads]
        parts[what] = [empty, value, key, attention.get(f"q_proj.{what}", empty), steps]
    parts["bias"][0] = torch.full((width,), OPEN_GATE)
    return {
        **fresh,
        "in_proj.weight": torch.cat(parts["weight"]),
        "in_proj.bias": torch.cat(parts["bias"]),
        "out_proj.weight": attention["o_proj.weight"],
        "out_proj.bias": attention.get("o_proj.bias", query.new_zeros(attention["o_proj.weight"].shape[0])),
        "conv1d.weight": identity_convolution(fresh["conv1d.weight"]),
        "conv1d.bias": torch.zeros_like(fresh["conv1d.bias"]),
        "dt_bias": step_bias(heads),
        "A_log": torch.zeros(heads),
        "D": torch.zeros(heads),
        "norm.weight": inputs.scale.repeat_interleave(width // heads),
    }
