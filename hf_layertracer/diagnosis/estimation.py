"""Means over random draws, and what is known of them: control variates, and standard errors from draws of one design.

What a mask does to a layer is decided by which of the few massive dimensions of its hidden state it hits. How often
masks hit them, alone and together, is known: so a mean over the masks that were drawn is corrected for how often these
did (control variates with known means; Owen, Monte Carlo theory, methods and examples, section 8.9).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from torch import Tensor

from .clean_run import CleanRun
from .statistics import Array


# On the demo model, further dimensions and interactions of three explain nothing more.
MASSIVE_DIMENSIONS = 4
_DRAWS_PER_PREDICTOR = 6  # with fewer, slopes would fit the draws' noise
_FEWEST_GROUPS = 8  # with fewer, single draws say more of the error than groups of them


@dataclass(frozen=True)
class Estimate:
    """The layers' means over all draws.

    Args:
        values (`Array`): Values of each draw less what the control variates explain of it, of shape `(layers, draws)`.
        mean (`Array`): Means of shape `(layers,)`.
        parts (`Array`):
            What each independent group of draws adds to the error of these means, of shape `(layers, groups)`: the
            standard error of a weighted sum of the means is the length of the weighted sum of the rows.
    """

    values: Array
    mean: Array
    parts: Array

    @property
    def stderr(self) -> Array:
        """Standard errors of `mean`."""
        return np.linalg.norm(self.parts, axis=1)

    @property
    def covariance(self) -> Array:
        """Covariances of `mean`, of shape `(layers, layers)`."""
        return self.parts @ self.parts.T


def estimate_means(values: Array, probes: Array, designs: Array, predictors: Array | None = None) -> Estimate:
    """Means over draws by regression on control variates, with cluster-robust errors.

    Of probes with several draws each, the mean is that over these very probes, and its error that of the draws. Of probes
    with one draw each, the two cannot be told apart: how much the probes differ then counts as error.

    Args:
        values (`Array`): One value for each draw, of shape `(layers, draws)`.
        probes (`Array`): The probe of each draw.
        designs (`Array`): Draws with the same number depend on each other, as masks that share no dimension do.
        predictors (`Array`, *optional*): What is known of each draw, less its expectation: `(layers, draws, predictors)`.

    Returns:
        [`Estimate`]: The means and their errors; these are 0 where there is a single draw.
    """
    count = values.shape[1]
    _, probe = np.unique(probes, return_inverse=True)
    if probe.max() + 1 == count:
        probe = np.zeros(count, dtype=int)  # one draw each: nothing would be left to estimate an error from
    _, group = np.unique(designs, return_inverse=True)
    if (group.max() + 1) * (1 - (probe.max() + 1) / count) < _FEWEST_GROUPS:
        group = np.arange(count)
    adjusted, parts = np.empty(values.shape), np.zeros((len(values), group.max() + 1))
    for layer, value in enumerate(values):
        known = np.zeros((count, 0)) if predictors is None else predictors[layer]
        adjusted[layer], parts[layer] = _regression(value, probe, group, known)
    return Estimate(adjusted, adjusted.mean(1), parts)


def _regression(value: Array, probe: np.ndarray, group: np.ndarray, known: Array) -> tuple[Array, Array]:
    """Least squares on the predictors and the probes. The mean is a weighted sum of the draws, and so is its error."""
    count, draws_of = len(value), np.bincount(probe)

    def within(columns: Array) -> Array:
        """Columns less their mean over the draws of the same probe."""
        sums = np.zeros((len(draws_of), columns.shape[1]))
        np.add.at(sums, probe, columns)
        return columns - (sums / draws_of[:, None])[probe]

    left, singular, right = np.linalg.svd(within(known), full_matrices=False)
    used = singular > 1e-8 * max(1.0, *singular) if len(singular) else np.zeros(0, dtype=bool)
    left, right = left[:, used], right[used] / singular[used, None]
    residual = within(value[:, None])
    slopes = right.T @ (left.T @ residual)
    residual = (residual - left @ (left.T @ residual))[:, 0]
    adjusted = value - (known @ slopes)[:, 0]
    weights = 1 / count - left @ (right @ known.mean(0))
    parts = np.bincount(group, weights * residual)
    # Residuals are smaller than errors, as the means of probes and the slopes were fitted to them: by how much is known
    # where draws are independent.
    projected = np.zeros((len(parts), left.shape[1]))
    np.add.at(projected, group, weights[:, None] * left)
    of_probes = np.zeros((len(parts), len(draws_of)))
    np.add.at(of_probes, (group, probe), weights)
    fitted = (projected**2).sum() + (of_probes**2 / draws_of).sum()
    total = float((weights**2).sum())
    scale = np.sqrt(total / (total - fitted)) if total - fitted > 1e-9 * total else 0.0
    return adjusted, np.asarray(parts * scale, dtype=np.float64)


def massive_shares(clean: CleanRun) -> Array:
    """How much of the squared length of the hidden states lies in each dimension.

    Args:
        clean ([`CleanRun`]): A clean run.

    Returns:
        `Array`: Shares of shape `(layers, width)`, summed over all positions.
    """
    shares = []
    for state in clean.states[1:]:
        squares = _squares(state)
        shares.append((squares / squares.sum(-1, keepdim=True).clamp_min(1e-300)).sum(0).cpu().numpy())
    return np.stack(shares)


def _squares(state: Tensor) -> Tensor:
    # The CPU knows float64 in any case.
    return state.flatten(0, -2).cpu().double().square()


def dimensions_to_correct(draws: int, probes: int) -> int:
    """For how many massive dimensions a mean can be corrected.

    Args:
        draws (`int`): How many draws there are.
        probes (`int`): How many probes they are spread over.

    Returns:
        `int`: At most `MASSIVE_DIMENSIONS`; 0 where draws are too few.
    """
    free = draws - probes if draws > probes else draws - 1
    for size in range(MASSIVE_DIMENSIONS, 0, -1):
        if len(_alone_and_in_pairs(range(size))) * _DRAWS_PER_PREDICTOR <= free:
            return size
    return 0


def mask_predictors(masks: np.ndarray, shares: Array, dimensions: int) -> Array:
    """Which massive dimensions of each layer each mask hits, alone and in pairs, less how often masks do.

    Args:
        masks (`np.ndarray`): Booleans of shape `(draws, width)`, equally many `True` in each row.
        shares (`Array`): How massive each dimension is, of shape `(layers, width)`.
        dimensions (`int`): How many of them are taken.

    Returns:
        `Array`: Control variates of shape `(layers, draws, predictors)`.
    """
    found = []
    for share in shares:
        massive = np.argsort(-share, kind="stable")[:dimensions].tolist()
        found.append(np.stack([hits(masks, chosen) for chosen in _alone_and_in_pairs(massive)], axis=1))
    return np.stack(found)


def hits(masks: np.ndarray, dimensions: Sequence[int]) -> Array:
    """Whether each mask hits all of some dimensions, less the probability that a random one does.

    Args:
        masks (`np.ndarray`): Booleans of shape `(draws, width)`, equally many `True` in each row.
        dimensions (`Sequence[int]`): The dimensions.

    Returns:
        `Array`: Values of shape `(draws,)`, whose expectation is 0.
    """
    count, width = int(masks[0].sum()), masks.shape[1]
    probability = 1.0
    for already in range(len(dimensions)):
        probability *= (count - already) / (width - already)
    hit = np.all(masks[:, list(dimensions)], axis=1)
    return np.asarray(hit, dtype=np.float64) - probability


def _alone_and_in_pairs(dimensions: Sequence[int]) -> list[tuple[int, ...]]:
    return [(dimension,) for dimension in dimensions] + list(combinations(dimensions, 2))
