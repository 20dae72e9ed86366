"""How far two output distributions lie apart."""

from __future__ import annotations

import math

import torch
from torch import Tensor


# So many values at once: a CPU takes three times as long for what does not stay in its cache.
_IN_CACHE = 1 << 17
# What equal distributions may seem to differ by, in float64.
_ROUNDING = 1e-12


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
    (p, entropy_p), (q, entropy_q) = (_distribution(logits.to(dtype)) for logits in (logits_p, logits_q))
    mixture = p.add_(q).div_(2)
    entropy = -torch.linalg.vecdot(mixture, mixture.clamp(min=torch.finfo(dtype).tiny).log_())
    divergence = ((entropy - (entropy_p + entropy_q) / 2) / math.log(2)).clamp(0.0, 1.0)
    return divergence.masked_fill(divergence < _ROUNDING, 0.0)


def _distribution(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities, and their entropy in nats: taken from the logits, it needs no logarithm of each probability."""
    shifted = logits - logits.amax(-1, keepdim=True)
    p = shifted.exp()
    total = p.sum(-1, keepdim=True)
    # A token that the model rules out (probability 0, logit -inf) contributes nothing.
    mean = torch.linalg.vecdot(p.div_(total), shifted.clamp_(min=torch.finfo(logits.dtype).min))
    return p, total.squeeze(-1).log() - mean
