"""Intervals that hold for few items, and the quantiles that they need."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np


_MOST_DEGREES = 4000  # beyond, Student's t is the normal distribution to three digits


@lru_cache(maxsize=256)
def critical_value(level: float, degrees: int) -> float:
    """Two-sided critical value of Student's t: `P(|T| < value) = level`.

    From the finite series for whole degrees of freedom (Abramowitz and Stegun, 26.7.3 and 26.7.4), by bisection.

    Args:
        level (`float`): A probability between 0 and 1.
        degrees (`int`): Degrees of freedom, at least 1.

    Returns:
        `float`: 12.706 for a level of 0.95 and one degree.
    """
    degrees = min(degrees, _MOST_DEGREES)
    odd = degrees % 2
    terms = np.arange(1, degrees // 2)
    factors = (terms * 2) / (terms * 2 + 1) if odd else (terms * 2 - 1) / (terms * 2)
    coefficients = np.cumprod(np.append(1.0, factors))
    powers = 2 * np.arange(len(coefficients)) + odd

    def coverage(angle: float) -> float:
        series = float((coefficients * math.cos(angle) ** powers).sum()) if degrees > 1 else 0.0
        return 2 / math.pi * (angle + math.sin(angle) * series) if odd else math.sin(angle) * series

    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if coverage(middle) < level else (low, middle)
    return math.tan(low) * math.sqrt(degrees)


def wilson(proportion: float, n: float, critical: float) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson, 1927).

    Args:
        proportion (`float`): Between 0 and 1.
        n (`float`): How many items, or the effective number of them.
        critical (`float`): Two-sided critical value.

    Returns:
        `tuple[float, float]`: Lower and upper end, within 0 and 1 and around `proportion`.
    """
    square = critical**2 / n
    centre = (proportion + square / 2) / (1 + square)
    half = math.sqrt(proportion * (1 - proportion) * square + square**2 / 4) / (1 + square)
    return max(0.0, min(proportion, centre - half)), min(1.0, max(proportion, centre + half))


def tango(better: int, worse: int, n: int, level: float) -> tuple[float, float]:
    """Score interval of the difference of two paired proportions: Wilson's for pairs.

    Tango, Statistics in Medicine 17 (1998), 891-908. The ends are the differences whose score statistic, with the
    discordant share estimated under that difference, reaches the critical value; found by bisection.

    Args:
        better (`int`): Items that only the first has right.
        worse (`int`): Items that only the second has right.
        n (`int`): All items.
        level (`float`): Coverage of the interval.

    Returns:
        `tuple[float, float]`: Lower and upper end.
    """
    critical = critical_value(level, _MOST_DEGREES)
    observed = (better - worse) / n

    def inside(difference: float) -> bool:
        linear = -better - worse + (2 * n - better + worse) * difference
        constant = -worse * difference * (1 - difference)
        only_second = (math.sqrt(max(0.0, linear**2 - 8 * n * constant)) - linear) / (4 * n)
        variance = n * (2 * only_second + difference * (1 - difference))
        return (better - worse - n * difference) ** 2 <= critical**2 * variance

    def end(outside: float) -> float:
        within = observed
        for _ in range(50):
            middle = (within + outside) / 2
            within, outside = (middle, outside) if inside(middle) else (within, middle)
        return within

    return end(-1.0), end(1.0)
