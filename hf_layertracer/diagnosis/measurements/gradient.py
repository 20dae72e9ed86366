"""Layer Sensitivity estimated: gradients for every draw, measurement for a few, regression between the two.

One forward pass and a few backward passes per batch give the gradient of the likeliest tokens' logits with respect to
every layer's output at once. They predict, to first order, what any perturbation of any layer does to these logits, and
so the divergence it causes. Three things make the crude prediction far from the truth, and each has its remedy:

* Saturation: a divergence is bounded. The predicted logits go through the softmax and the divergence itself rather than
  through its quadratic expansion.
* Massive dimensions: zeroing one of them mostly changes the scale of the hidden state, which the norms that read it take
  out again. The perturbed state is brought back to its old length before the gradient is applied; what is left of the
  effect is strongly non-linear, so whether a mask hits each of the most massive dimensions is a predictor of its own.
* Bias: a regression on a sample of draws that are measured exactly says how much each predictor is worth for each
  layer. Its predictions over all draws, plus its errors on the sample, give the estimate (double sampling with
  regression; Cochran, Sampling Techniques, 1977, section 12.6).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...config import DiagnosisConfig
from ..clean_run import CleanRun
from ..differentiating import differentiating
from ..divergence import jensen_shannon
from ..layer_stack import LayerStack
from ..perturbations import Draw, Perturb
from .base import Batch, Subject
from .sensitivity import LayerSensitivity


# Measured on the demo model: more tokens cost a backward pass each and predict no better.
TOP_TOKENS = 2
MASSIVE_DIMENSIONS = 4
_CALIBRATION_SHARE = 5
_CALIBRATION_LIMITS = (48, 128)


class EstimatedSensitivity(LayerSensitivity):
    """Layer Sensitivity predicted for every draw and measured for a sample of them."""

    name = "sensitivity"
    estimator = "gradient"
    needs_gradients = True

    def start(self, subject: Subject) -> int:
        work = super().start(subject)
        self.predicted = np.full(self.measured.shape, np.nan)
        self.massive = torch.zeros(subject.num_layers, subject.clean.width, dtype=torch.float64)
        return work

    def _sample(self, config: DiagnosisConfig) -> np.ndarray:
        """A seeded sample, spread evenly over the probes."""
        total = len(self.draws)
        low, high = _CALIBRATION_LIMITS
        count = min(total, max(low, min(high, total // _CALIBRATION_SHARE)))
        jitter = np.random.default_rng((config.diagnosis_seed, count)).random(count)
        return np.floor((np.arange(count) + jitter) * total / count).astype(int)

    def observe(self, batch: Batch) -> None:
        clean = batch.clean
        draws = [[Draw(probe, repeat, self.repeats) for probe in batch.members] for repeat in range(self.repeats)]
        with differentiating(self.subject.stack):
            predicted = predict_batch(
                self.subject.stack, clean, [self.perturbation.on(each, clean.width) for each in draws]
            )
        for repeat, each in enumerate(draws):
            self.predicted[:, [draw.number for draw in each]] = predicted[:, repeat]
        self.massive += massive_dimensions(clean)
        super().observe(batch)

    def result(self) -> dict[str, Any]:
        predictors = self.predicted[:, :, None]
        hits = self._hits()
        if hits is not None:
            predictors = np.concatenate([predictors, np.broadcast_to(hits, (len(predictors), *hits.shape))], -1)
        adjusted = regression_estimate(predictors, self.measured[:, self.sample], self.sample)
        tasks = [self.subject.tasks[self.draws[number].probe] for number in self.sample]
        return self._record(adjusted[:, None], tasks, estimate=True, calibration_draws=len(self.sample))

    def _hits(self) -> np.ndarray | None:
        """Whether each draw's mask hits the most massive dimensions, of shape `(draws, dimensions)`."""
        massive = self.massive.amax(0)
        dimensions = massive.topk(min(MASSIVE_DIMENSIONS, len(massive))).indices
        masks = self.perturbation.masks(self.draws, len(massive))
        return None if masks is None else masks[:, dimensions].double().numpy()


def predict_batch(stack: LayerStack, clean: CleanRun, perturbs: Sequence[Perturb]) -> np.ndarray:
    """The divergence that gradients predict for each perturbation of each layer.

    Args:
        stack ([`LayerStack`]): The model's layers.
        clean ([`CleanRun`]): The clean run over the batch.
        perturbs (`Sequence[Perturb]`): One entry a repeat, each over all probes of the batch in their order.

    Returns:
        `np.ndarray`: Predicted divergences in bits, of shape `(layers, repeats, probes)`.
    """
    run = stack.differentiable(clean.input_ids, clean.layout)
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
            for perturb in perturbs:
                changed = perturb(layer, before, after)
                length = changed.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(changed.dtype).tiny)
                change = changed * (after.norm(dim=-1, keepdim=True) / length) - after
                shift = [(gradient[layer] * change).flatten(1).sum(-1).to(logits) for gradient in gradients]
                moved = outcomes + torch.stack([*shift, torch.zeros_like(shift[0])], -1)
                predictions.append(jensen_shannon(outcomes, moved))
    shape = (stack.num_layers, len(perturbs), len(clean.input_ids))
    return torch.stack(predictions).view(shape).double().cpu().numpy()


def massive_dimensions(clean: CleanRun) -> Tensor:
    """How much of the squared length of the hidden states lies in each dimension.

    Args:
        clean ([`CleanRun`]): A clean run.

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
