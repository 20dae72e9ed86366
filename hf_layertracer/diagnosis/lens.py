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


def read_lens(
    stack: LayerStack, clean: CleanRun, targets: Tensor, rows: int, whole_prompts: bool = False
) -> LensReading:
    """Lens probabilities p[i, l] = softmax(U(N(h[i, l])))[target_i], with the model's own final norm and head.

    Each hidden state goes through the final norm as itself: the norm's scale is computed anew from it, never reused
    from the last layer's.

    Args:
        stack ([`LayerStack`]): The model's layers.
        clean ([`CleanRun`]): The undisturbed run of the batch.
        targets (`Tensor`): Target token of each probe, of shape `(probes,)`.
        rows (`int`): The most hidden states to read at once.
        whole_prompts (`bool`, *optional*, defaults to `False`):
            Whether what follows the layers is given all positions and the tokens, rather than the last position alone.

    Returns:
        [`LensReading`]: The readings; at the last layer they should be the model's own output.
    """
    depth, probes = len(clean.states), len(targets)
    device, wanted, own = clean.states[-1].device, targets.to(clean.logits.device), clean.logits.softmax(-1)
    probability, top_token = np.empty((probes, depth)), np.empty((probes, depth), dtype=np.int64)
    gaps = []
    for start in range(0, probes, rows):
        at = slice(start, min(start + rows, probes))
        # As many depths share a pass as fill it.
        depths = max(1, rows // (at.stop - at.start))
        for first in range(0, depth, depths):
            group = slice(first, min(first + depths, depth))
            states = [(state[at] if whole_prompts else state[at, -1:]).to(device) for state in clean.states[group]]
            prompts = clean.input_ids[at].repeat(len(states), 1) if whole_prompts else None
            read = stack.read(torch.cat(states), prompts).softmax(-1).view(len(states), at.stop - at.start, -1)
            answers = wanted[at].expand(len(states), -1)[..., None]
            probability[at, group] = read.gather(-1, answers)[..., 0].T.double().cpu()
            top_token[at, group] = read.argmax(-1).T.cpu()
        gaps.append((read[-1] - own[at]).abs().amax(-1) / own[at].amax(-1))
    return LensReading(probability, top_token, float(torch.cat(gaps).max()))
