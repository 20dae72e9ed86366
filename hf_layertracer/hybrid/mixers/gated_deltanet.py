"""Gated delta net from attention: queries, keys and values as they are, the output projection behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .common import OPEN_GATE, identity_convolution, repeated, step_bias


if TYPE_CHECKING:
    from ..mappings.base import MixerInputs


def gated_deltanet_from_attention(inputs: MixerInputs) -> dict[str, Tensor]:
    """A gated delta net that takes an attention's projections over.

    The class gives its gate no bias, so the gate reads how far an input lies along the mean input: one at the mean. The
    norm behind the state has no size of its own by head, so the output projection carries it.

    Args:
        inputs ([`MixerInputs`]): The attention and the mixer as its class begins.

    Returns:
        `dict[str, Tensor]`: The mixer's weights.
    """
    fresh, attention, heads = inputs.fresh, inputs.attention, inputs.heads
    query = attention["q_proj.weight"]
    width = query.shape[0]
    key, value = (repeated(attention[f"{name}.weight"], heads, inputs.groups) for name in ("k_proj", "v_proj"))
    along = inputs.mean_input / inputs.mean_input.square().sum().clamp_min(1e-12)
    return {
        **fresh,
        "in_proj_qkv.weight": torch.cat([query, key, value]),
        "in_proj_z.weight": (OPEN_GATE * along).expand(width, -1).clone(),
        "in_proj_b.weight": torch.zeros_like(fresh["in_proj_b.weight"]),
        "in_proj_a.weight": torch.zeros_like(fresh["in_proj_a.weight"]),
        "out_proj.weight": attention["o_proj.weight"] * inputs.scale.repeat_interleave(width // heads),
        "conv1d.weight": identity_convolution(fresh["conv1d.weight"]),
        "dt_bias": step_bias(heads),
        "A_log": torch.zeros(heads),
        "norm.weight": torch.ones_like(fresh["norm.weight"]),
    }
