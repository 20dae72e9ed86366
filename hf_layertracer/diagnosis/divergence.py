"""How far two output distributions lie apart."""

from __future__ import annotations

import math

import torch
from torch import Tensor


# So many values at once: a CPU takes three times as long for what does not stay in its cache.
_IN_CACHE = 1 << 18


def jensen_shannon(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    """Jensen-Shannon divergence between two categorical distributions, in bits (arXiv 2605.11416; base 2: in [0, 1]).

    Args:
        logits_p (`Tensor`): Unnormalised log-probabilities of shape `(..., vocabulary)`.
        logits_q (`Tensor`): Likewise; broadcast against `logits_p`.

    Returns:
        `Tensor`: Divergences of shape `(...)`, in bits.
    """
    logits_p, logits_q = torch.broadcast_tensors(logits_p, logits_q)
    if logits_p.device.type == "cpu" and logits_p.numel() > max(_IN_CACHE, logits_p.shape[-1]):
        rows = max(1, _IN_CACHE // logits_p.shape[-1])
        parts = zip(*(logits.flatten(0, -2).split(rows) for logits in (logits_p, logits_q)), strict=True)
        return torch.cat([_divergence(*part) for part in parts]).view(logits_p.shape[:-1])
    return _divergence(logits_p, logits_q)


def _divergence(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    # In float32 the sum over a large vocabulary is off by 1e-5, as much as many a layer does.
    dtype = torch.float32 if logits_p.device.type == "mps" else torch.float64
    p, q = logits_p.to(dtype).softmax(-1), logits_q.to(dtype).softmax(-1)

    def entropy(x: Tensor) -> Tensor:
        # A token that the model rules out (probability 0) contributes nothing.
        return torch.special.entr(x).sum(-1)

    divergence = (entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2) / math.log(2)
    return divergence.clamp(0.0, 1.0)
