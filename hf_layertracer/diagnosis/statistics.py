"""Standard errors, intervals and rank correlations for per-layer measurements."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


Array = NDArray[np.float64]


def standard_error(values: Array, axis: int) -> Array:
    """Standard error of the mean of independent values along `axis`; that of a single one is not known, and given as 0."""
    count = values.shape[axis]
    if count < 2:
        return np.zeros(np.delete(values.shape, axis))
    return values.std(axis, ddof=1) / np.sqrt(count)


def bootstrap_median_interval(values: Array, seed: int, resamples: int = 2000) -> tuple[float, float] | None:
    """Percentile bootstrap 95 % interval of the median (Efron and Tibshirani, 1993, chapter 13).

    Args:
        values (`Array`): A sample of shape `(n,)`.
        seed (`int`): Seed of the resampling.
        resamples (`int`, *optional*, defaults to `2000`): Number of bootstrap samples.

    Returns:
        `tuple[float, float]` or `None`: The 2.5 % and 97.5 % quantiles of the resampled medians; `None` below 2 values, of
            which every resample is the same.
    """
    if len(values) < 2:
        return None
    draws = np.random.default_rng(seed).choice(values, (resamples, len(values)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return float(low), float(high)


def rank_correlation(a: Array, b: Array) -> float:
    """Spearman's rank correlation of two per-layer series; ties share their mean rank. 0 if either is constant.

    Args:
        a (`Array`): Values of shape `(n,)`.
        b (`Array`): Values of shape `(n,)`.

    Returns:
        `float`: The correlation, in [-1, 1].
    """
    ranks_a, ranks_b = _ranks(a), _ranks(b)
    if ranks_a.std() == 0 or ranks_b.std() == 0:
        return 0.0
    return float(np.corrcoef(ranks_a, ranks_b)[0, 1])


def rank_stability(values: Array, seed: int, splits: int = 50) -> float | None:
    """Whether another set of probes would rank the layers the same: mean split-half rank correlation.

    Args:
        values (`Array`): Measurements of shape `(layers, repeats, probes)`.
        seed (`int`): Seed of the random halves.
        splits (`int`, *optional*, defaults to `50`): Number of random halvings of the probes.

    Returns:
        `float` or `None`: Mean Spearman correlation between the two halves' layer means; `None` below 4 probes.
    """
    per_probe = values.mean(1)
    probes = per_probe.shape[1]
    if probes < 4:
        return None
    rng = np.random.default_rng(seed)
    correlations = []
    for _ in range(splits):
        order = rng.permutation(probes)
        first, second = order[: probes // 2], order[probes // 2 :]
        correlations.append(rank_correlation(per_probe[:, first].mean(1), per_probe[:, second].mean(1)))
    return float(np.mean(correlations))


def _ranks(values: Array) -> Array:
    values = np.asarray(values, dtype=np.float64)
    # Mean rank of equal values: the average of how many are smaller and how many are not larger.
    smaller = (values[None, :] < values[:, None]).sum(1)
    not_larger = (values[None, :] <= values[:, None]).sum(1)
    return (smaller + not_larger - 1) / 2
