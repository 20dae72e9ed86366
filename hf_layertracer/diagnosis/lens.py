"""The logit lens: what the model would answer if it stopped after each layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .replay import CleanRun, LayerStack


@dataclass(frozen=True)
class LensReading:
    """What the lens reads for one batch of probes.

    Args:
        probability (`np.ndarray`): Probability of each probe's target, of shape `(probes, layers + 1)`.
        top_token (`np.ndarray`): The likeliest token at each layer, of the same shape.
        error (`float`):
            Largest difference between the reading at the last layer and the model's own output, as a fraction of the
            largest probability in that output.
    """

    probability: np.ndarray
    top_token: np.ndarray
    error: float


def read_lens(stack: LayerStack, clean: CleanRun, targets: Tensor, rows: int) -> LensReading:
    """Lens probabilities p[i, l] = softmax(U(N(h[i, l])))[target_i], with the model's own final norm and head.

    Each hidden state goes through the final norm as itself: the norm's scale is computed anew from it, never reused
    from the last layer's.

    Args:
        stack ([`LayerStack`]): The model's layers.
        clean ([`CleanRun`]): The undisturbed run of the batch.
        targets (`Tensor`): Target token of each probe, of shape `(probes,)`.
        rows (`int`): The most hidden states to read at once.

    Returns:
        [`LensReading`]: The readings; at the last layer they should be the model's own output.
    """
    depth = len(clean.states)
    device = clean.states[-1].device
    flat = torch.cat([state[:, -1:].to(device) for state in clean.states])  # (depth * probes, 1, ...)
    wanted = targets.to(clean.logits.device).repeat(depth)
    probability, top = [], []
    for chunk, answers in zip(flat.split(rows), wanted.split(rows), strict=True):
        probabilities = stack.read(chunk).softmax(-1)
        probability.append(probabilities.gather(1, answers[:, None])[:, 0])
        top.append(probabilities.argmax(-1))
    final, own = stack.read(clean.states[-1][:, -1:]).softmax(-1), clean.logits.softmax(-1)
    return LensReading(
        torch.cat(probability).view(depth, -1).T.double().cpu().numpy(),
        torch.cat(top).view(depth, -1).T.cpu().numpy(),
        float(((final - own).abs().amax(-1) / own.amax(-1)).max()),
    )
