"""Statistics for comparing models on the same items: differences with errors, tests and intervals fit for few items."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import LayerTracerError
from .estimates import Estimate, PairedTest, SeedEstimate
from .intervals import critical_value, tango, wilson


Array = NDArray[np.float64]


def paired_difference(
    scores: ArrayLike,
    baseline: ArrayLike,
    groups: Sequence[Hashable] | None = None,
    weights: ArrayLike | None = None,
    level: float = 0.95,
) -> Estimate:
    """Mean difference of two models' scores on the same items, with a standard error clustered by group.

    The standard error is that of Miller, arXiv 2411.00640, sections 2.2 and 4.2: items of one subject share a context, so
    that their deviations add up within a subject before they are squared. With few clusters that is too small: it is
    multiplied by `sqrt(clusters / (clusters - 1))`, and the interval uses Student's t with `clusters - 1` degrees of
    freedom. For right or wrong answers, the interval is at least as wide as Tango's score interval (1998): without
    it, a handful of items on which no answer changed would prove that there is no difference.

    Args:
        scores (`ArrayLike`): The first model's scores, of shape `(n,)`: 0 or 1, or real numbers.
        baseline (`ArrayLike`): The second model's, in the same order.
        groups (`Sequence[Hashable]`, *optional*): The cluster of each item. One cluster tells nothing: it counts as none.
        weights (`ArrayLike`, *optional*): Weights of the items, such as bytes.
        level (`float`, *optional*, defaults to `0.95`): Coverage of the interval.

    Returns:
        [`Estimate`]: `scores - baseline`.

    Raises:
        LayerTracerError: The lengths differ or there are no items.

    Example:

    ```python
    >>> from hf_layertracer.evaluation.statistics import paired_difference
    >>> paired_difference([1, 1, 0, 1], [1, 0, 0, 0]).value
    0.5
    ```
    """
    scores, baseline = _paired(scores, baseline)
    weights = _weights(weights, len(scores))
    differences = scores - baseline
    value, stderr, clusters = _clustered_mean(differences, groups, weights)
    low = high = None
    if stderr is not None:
        half = critical_value(level, clusters - 1) * stderr
        low, high = value - half, value + half
    if _is_binary(scores) and _is_binary(baseline) and np.ptp(weights) == 0:
        least = tango(int((differences > 0).sum()), int((differences < 0).sum()), len(differences), level)
        low = max(-1.0, min(value if low is None else low, least[0]))
        high = min(1.0, max(value if high is None else high, least[1]))
    return Estimate(value, stderr, low, high, len(differences), clusters)


def paired_difference_over_seeds(
    scores: ArrayLike,
    baseline: ArrayLike,
    groups: Sequence[Hashable] | None = None,
    weights: ArrayLike | None = None,
    level: float = 0.95,
) -> SeedEstimate:
    """Mean difference over training seeds and items, with the error of each source apart.

    The interval adds both variances, which counts the part that belongs to neither alone twice: it is never too narrow
    for that reason. Its degrees of freedom are Satterthwaite's. With one seed it holds for that seed only.

    Args:
        scores (`ArrayLike`): Shape `(seeds, n)`.
        baseline (`ArrayLike`): Shape `(seeds, n)`, or `(n,)` for a model without seeds.
        groups (`Sequence[Hashable]`, *optional*): The cluster of each item.
        weights (`ArrayLike`, *optional*): Weights of the items.
        level (`float`, *optional*, defaults to `0.95`): Coverage of the interval.

    Returns:
        [`SeedEstimate`]: `scores - baseline`.

    Raises:
        LayerTracerError: The shapes do not fit or there are no items.
    """
    scores, baseline = np.atleast_2d(np.asarray(scores, float)), np.atleast_2d(np.asarray(baseline, float))
    try:
        scores, baseline = np.broadcast_arrays(scores, baseline)
    except ValueError as error:
        raise LayerTracerError(f"Scores of shapes {scores.shape} and {baseline.shape} are no pairs.") from error
    items = paired_difference(scores.mean(0), baseline.mean(0), groups, weights, level)
    seeds = len(scores)
    if seeds == 1 or items.stderr is None or items.low is None or items.high is None:
        return SeedEstimate(items.value, None, items.stderr, items.low, items.high, seeds, items.n, items.clusters)
    by_seed = np.average(scores - baseline, axis=1, weights=_weights(weights, scores.shape[1]))
    seed_stderr = float(by_seed.std(ddof=1)) / math.sqrt(seeds)
    variances = np.array([seed_stderr**2, items.stderr**2])
    total = float(variances.sum())
    degrees = total**2 / float((variances**2 / [seeds - 1, items.clusters - 1]).sum()) if total else 1
    half = critical_value(level, max(1, math.floor(degrees))) * math.sqrt(total)
    # More sources of variance never make an interval narrower.
    low, high = min(items.low, items.value - half), max(items.high, items.value + half)
    return SeedEstimate(items.value, seed_stderr, items.stderr, low, high, seeds, items.n, items.clusters)


def exact_paired_test(scores: ArrayLike, baseline: ArrayLike) -> PairedTest:
    """Whether one model does better on more items than by chance: exact at any number of items.

    For right or wrong answers this is McNemar's exact test, for real scores the sign test: under the null hypothesis, each
    item on which the two differ is a fair coin. Items count as independent.

    Args:
        scores (`ArrayLike`): The first model's scores, of shape `(n,)`.
        baseline (`ArrayLike`): The second model's, in the same order.

    Returns:
        [`PairedTest`]: Counts and the two-sided p-value.

    Raises:
        LayerTracerError: The lengths differ or there are no items.
    """
    scores, baseline = _paired(scores, baseline)
    better, worse = int((scores > baseline).sum()), int((scores < baseline).sum())
    coins = better + worse
    # Integers of any size: exact, and no underflow for thousands of items.
    tail = ways = 1
    for count in range(min(better, worse)):
        ways = ways * (coins - count) // (count + 1)
        tail += ways
    return PairedTest(better, worse, len(scores) - coins, min(1.0, float(Fraction(2 * tail, 2**coins))))


def accuracy(correct: ArrayLike, groups: Sequence[Hashable] | None = None, level: float = 0.95) -> Estimate:
    """Accuracy with Wilson's interval, which holds for few items and near 0 and 1; clustered by group.

    With groups, the number of items is replaced by the effective one, `p (1 - p) / stderr²`, never more than there are,
    and the normal quantile by Student's t (Korn and Graubard, 1998).

    Args:
        correct (`ArrayLike`): 0 or 1 for each item, of shape `(n,)`.
        groups (`Sequence[Hashable]`, *optional*): The cluster of each item.
        level (`float`, *optional*, defaults to `0.95`): Coverage of the interval.

    Returns:
        [`Estimate`]: The accuracy. It is above chance where `low` is.

    Raises:
        LayerTracerError: There are no items, or values other than 0 and 1.
    """
    correct, _ = _paired(correct, correct)
    if not _is_binary(correct):
        raise LayerTracerError("Accuracy is of right and wrong answers: only 0 and 1.")
    value, stderr, clusters = _clustered_mean(correct, groups, np.ones(len(correct)))
    n = len(correct)
    effective = min(n, value * (1 - value) / stderr**2) if stderr else n
    low, high = wilson(value, effective, critical_value(level, max(1, clusters - 1)))
    return Estimate(value, stderr, low, high, n, clusters)


def average_relative_improvement(scores: ArrayLike, baseline: ArrayLike) -> float:
    """Mean of `score / baseline - 1` over benchmarks, as arXiv 2605.11416 computes its headline of 15.72 %.

    Read it with care. The paper's figure is the mean of 29.40/25.39 - 1 and 29.55/25.55 - 1: two readings of one
    benchmark, of which chance is 25, against the *opposite* allocation and not against full training. A ratio to a score
    near chance makes little of much and much of little, and it has no error: [`paired_difference`] has.

    Args:
        scores (`ArrayLike`): Scores, one a benchmark, higher being better.
        baseline (`ArrayLike`): Scores to compare with, above 0.

    Returns:
        `float`: 0.1572 stands for 15.72 %.

    Raises:
        LayerTracerError: The lengths differ, there are no scores or a baseline is not above 0.

    Example:

    ```python
    >>> from hf_layertracer.evaluation.statistics import average_relative_improvement
    >>> round(average_relative_improvement([29.40, 29.55], [25.39, 25.55]), 4)
    0.1572
    ```
    """
    scores, baseline = _paired(scores, baseline)
    if (baseline <= 0).any():
        raise LayerTracerError("A relative improvement needs baselines above 0.")
    return float((scores / baseline - 1).mean())


def learning(
    after: ArrayLike,
    before: ArrayLike,
    groups: Sequence[Hashable] | None = None,
    weights: ArrayLike | None = None,
    lower_is_better: bool = False,
    level: float = 0.95,
) -> Estimate:
    """How much better a model became on items of the new domain: positive where it learned.

    Args:
        after (`ArrayLike`): Scores after training, of shape `(n,)`.
        before (`ArrayLike`): Scores of the untouched model on the same items.
        groups (`Sequence[Hashable]`, *optional*): The cluster of each item.
        weights (`ArrayLike`, *optional*): Weights of the items, such as bytes.
        lower_is_better (`bool`, *optional*, defaults to `False`): For bits per byte and losses.
        level (`float`, *optional*, defaults to `0.95`): Coverage of the interval.

    Returns:
        [`Estimate`]: The gain.
    """
    first, second = (before, after) if lower_is_better else (after, before)
    return paired_difference(first, second, groups, weights, level)


def forgetting(
    after: ArrayLike,
    before: ArrayLike,
    groups: Sequence[Hashable] | None = None,
    weights: ArrayLike | None = None,
    lower_is_better: bool = False,
    level: float = 0.95,
) -> Estimate:
    """How much worse a model became on items of what it knew before: positive where it forgot.

    The arguments are those of [`learning`], and the result is its negative: two names, since the items are others and
    the two numbers are never added up without saying how.
    """
    return learning(before, after, groups, weights, lower_is_better, level)


def _paired(scores: ArrayLike, baseline: ArrayLike) -> tuple[Array, Array]:
    scores, baseline = np.asarray(scores, float), np.asarray(baseline, float)
    if scores.ndim != 1 or scores.shape != baseline.shape:
        raise LayerTracerError(f"Scores of shapes {scores.shape} and {baseline.shape} are no pairs.")
    if not len(scores):
        raise LayerTracerError("There are no items to compare.")
    if not (np.isfinite(scores).all() and np.isfinite(baseline).all()):
        raise LayerTracerError("A score is no finite number.")
    return scores, baseline


def _weights(weights: ArrayLike | None, n: int) -> Array:
    if weights is None:
        return np.ones(n)
    weights = np.asarray(weights, float)
    if weights.shape != (n,) or (weights < 0).any() or weights.sum() <= 0:
        raise LayerTracerError(f"Weights must be {n} numbers of at least 0, not all of them 0.")
    return weights


def _is_binary(values: Array) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())


def _clustered_mean(
    values: Array, groups: Sequence[Hashable] | None, weights: Array
) -> tuple[float, float | None, int]:
    """Weighted mean, its standard error from the clusters' summed deviations, and how many clusters there are."""
    if groups is not None and len(groups) != len(values):
        raise LayerTracerError(f"There are {len(groups)} groups for {len(values)} items.")
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups or ()))}
    value = float(np.average(values, weights=weights))
    sums = weights * (values - value)
    if groups is not None and len(numbers) > 1:
        sums = np.bincount([numbers[group] for group in groups], sums).astype(np.float64)
    clusters = len(sums)
    if clusters == 1:
        return value, None, 1
    return value, math.sqrt(clusters / (clusters - 1) * float((sums**2).sum())) / float(weights.sum()), clusters
