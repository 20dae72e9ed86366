"""Layer Sensitivity estimated: gradients for every draw, measurement for a few, regression between the two.

One forward pass and a few backward passes per batch give the gradient of the likeliest tokens' logits with respect to
every layer's output at once. They predict, to first order, what any disturbance of any layer does to these logits, and
so the divergence it causes. Three things make the crude prediction far from the truth, and each has its remedy:

* Saturation: a divergence is bounded. The predicted logits go through the softmax and the divergence itself rather than
  through its quadratic expansion.
* Massive dimensions: zeroing one of them mostly changes the scale of the hidden state, which the norms that read it take
  out again. The disturbed state is brought back to its old length before the gradient is applied; what is left of the
  effect is strongly non-linear, so whether a mask hits each of the most massive dimensions is a predictor of its own.
* Bias: a regression on a sample of draws that are measured exactly says how much each predictor is worth for each
  layer. Its predictions over all draws, plus its errors on the sample, give the estimate (double sampling with
  regression; Cochran, Sampling Techniques, 1977, section 12.6).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor

from ..errors import LayerTracerError
from .divergence import jensen_shannon
from .replay import CleanRun, LayerStack
from .sensitivity import Disturbance


# Measured on the demo model: more tokens cost a backward pass each and predict no better.
TOP_TOKENS = 2
MASSIVE_DIMENSIONS = 4


@contextmanager
def differentiating(stack: LayerStack) -> Iterator[None]:
    """Says what to do where a kernel has no derivative, or a layer hides its own from autograd."""
    try:
        yield
    except RuntimeError as error:
        if should_reduce_batch_size(error):
            raise
        raise LayerTracerError(
            f"{type(stack.model).__name__} gives no gradients of its layers ({error!s:.120}): use estimator='exact'."
        ) from error


def predict_batch(stack: LayerStack, input_ids: Tensor, disturbances: Sequence[Disturbance]) -> np.ndarray:
    """The divergence that gradients predict for each disturbance of each layer.

    Args:
        stack ([`LayerStack`]): The model's layers.
        input_ids (`Tensor`): Unpadded prompts of shape `(probes, positions)`.
        disturbances (`Sequence[Disturbance]`): One entry a repeat, each over all probes of the batch in their order.

    Returns:
        `np.ndarray`: Predicted divergences in bits, of shape `(layers, repeats, probes)`.
    """
    run = stack.differentiable(input_ids)
    top = run.logits.detach().topk(TOP_TOKENS, -1).indices
    gradients = []
    for number, token in enumerate(top.T):
        with torch.enable_grad():
            chosen = run.logits.gather(1, token[:, None]).sum()
        gradients.append(torch.autograd.grad(chosen, run.states[1:], retain_graph=number < TOP_TOKENS - 1))
    with torch.no_grad():
        logits = run.logits.detach()
        chosen = logits.gather(1, top)
        # All other tokens together are one more outcome, whose logit is taken not to change.
        rest = logits.scatter(1, top, -torch.inf).logsumexp(-1, keepdim=True)
        outcomes = torch.cat([chosen, rest], -1)
        predictions = []
        for layer in range(stack.num_layers):
            before, after = run.states[layer].detach(), run.states[layer + 1].detach()
            for disturb in disturbances:
                changed = disturb(layer, before, after)
                length = changed.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(changed.dtype).tiny)
                change = changed * (after.norm(dim=-1, keepdim=True) / length) - after
                shift = [(gradient[layer] * change).flatten(1).sum(-1).to(logits) for gradient in gradients]
                moved = outcomes + torch.stack([*shift, torch.zeros_like(shift[0])], -1)
                predictions.append(jensen_shannon(outcomes, moved))
    shape = (stack.num_layers, len(disturbances), len(input_ids))
    return torch.stack(predictions).view(shape).double().cpu().numpy()


def massive_dimensions(clean: CleanRun) -> Tensor:
    """How much of the squared length of the hidden states lies in each dimension.

    Args:
        clean ([`CleanRun`]): An undisturbed run.

    Returns:
        `Tensor`: Shares of shape `(layers, width)`, summed over all positions, in float64 on the CPU.
    """
    shares = []
    for state in clean.states[1:]:
        squares = state.flatten(0, -2).double().square()
        shares.append((squares / squares.sum(-1, keepdim=True).clamp_min(1e-300)).sum(0).cpu())
    return torch.stack(shares)


def regression_estimate(predictors: np.ndarray, measured: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """Combines predictors known for every draw with measurements of a sample of draws.

    Args:
        predictors (`np.ndarray`): Predictors of shape `(layers, draws, predictors)`.
        measured (`np.ndarray`): Exact values of the sample, of shape `(layers, len(sample))`.
        sample (`np.ndarray`): Index of each measured draw.

    Returns:
        `np.ndarray`:
            Adjusted values of shape `(layers, len(sample))`: their mean over the sample is the estimate, and the
            standard error of that mean is the estimate's: the regression's errors count with the size of the sample,
            what the regression explains with the number of all draws.
    """
    adjusted = np.empty_like(measured)
    # Explained variation shrinks to the share that is left of it in a mean over all draws.
    kept = np.sqrt(len(sample) / predictors.shape[1])
    for layer, values in enumerate(measured):
        everywhere = predictors[layer]
        here = everywhere[sample]
        centred = here - here.mean(0)
        spread = centred.var(0)
        used = spread > 1e-12
        centred, offset = centred[:, used], (everywhere.mean(0) - here.mean(0))[used]
        # A ridge worth a few draws: with a small sample, slopes would fit its noise.
        gram = centred.T @ centred + MASSIVE_DIMENSIONS * np.diag(spread[used])
        slopes = np.linalg.solve(gram, centred.T @ (values - values.mean()))
        adjusted[layer] = values + offset @ slopes - (1 - kept) * (centred @ slopes)
    return adjusted
