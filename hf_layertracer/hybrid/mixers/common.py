"""What all mixers that follow an attention begin with."""

from __future__ import annotations

import math

import torch
from torch import Tensor


# The gate is a SiLU: this argument makes it one.
OPEN_GATE = 1.2784645427610738
# Steps of the state, spread over the heads as Mamba spreads them: what a head remembers fades over 1 / step tokens.
_SHORTEST_STEP, _LONGEST_STEP = 1e-3, 1e-1


def repeated(matrix: Tensor, heads: int, groups: int) -> Tensor:
    """Key or value rows, once for each query head that reads them.

    Args:
        matrix (`Tensor`): Rows by head, of shape `(heads // groups * head_dim, ...)`.
        heads (`int`): Query heads.
        groups (`int`): Query heads to each key-value head.

    Returns:
        `Tensor`: Of shape `(heads * head_dim, ...)`.
    """
    by_head = matrix.view(heads // groups, -1, *matrix.shape[1:])
    return by_head.repeat_interleave(groups, 0).reshape(-1, *matrix.shape[1:])


def identity_convolution(like: Tensor) -> Tensor:
    """A causal convolution by channel that passes each position on: its last tap is one."""
    weight = torch.zeros_like(like)
    weight[..., -1] = 1
    return weight


def step_bias(heads: int) -> Tensor:
    """What a softplus turns into steps that are spread evenly on a logarithmic scale."""
    steps = torch.exp(torch.linspace(math.log(_SHORTEST_STEP), math.log(_LONGEST_STEP), heads))
    return steps + torch.log(-torch.expm1(-steps))
