"""How far two output distributions lie apart."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def jensen_shannon(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    """Jensen-Shannon divergence between two categorical distributions, in bits (arXiv 2605.11416; base 2: in [0, 1]).

    Args:
        logits_p (`Tensor`): Unnormalised log-probabilities of shape `(..., vocabulary)`.
        logits_q (`Tensor`): Likewise; broadcast against `logits_p`.

    Returns:
        `Tensor`: Divergences of shape `(...)`, in bits.
    """
    # In float32 the sum over a large vocabulary is off by 1e-5, as much as many a layer does.
    dtype = torch.float32 if logits_p.device.type == "mps" else torch.float64
    p, q = logits_p.to(dtype).softmax(-1), logits_q.to(dtype).softmax(-1)

    def entropy(x: Tensor) -> Tensor:
        # A token that the model rules out (probability 0) contributes nothing.
        return torch.special.entr(x).sum(-1)

    divergence = (entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2) / math.log(2)
    return divergence.clamp(0.0, 1.0)
