"""Numbers with their errors."""

from __future__ import annotations

from dataclasses import dataclass


class Interval:
    """What every estimate with an interval can say."""

    low: float | None
    high: float | None

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside the interval; otherwise no difference was found."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Estimate(Interval):
    """A mean over items, with its error.

    Args:
        value (`float`): The mean.
        stderr (`float` or `None`): Its standard error, from items or from clusters of items; `None` with one item.
        low (`float` or `None`): Lower end of the interval; `None` where one item says nothing.
        high (`float` or `None`): Upper end of the interval.
        n (`int`): How many items.
        clusters (`int`): How many clusters, or `n` where items count as independent.
    """

    value: float
    stderr: float | None
    low: float | None
    high: float | None
    n: int
    clusters: int


@dataclass(frozen=True)
class SeedEstimate(Interval):
    """A difference over seeds and items, whose errors are separate.

    Args:
        value (`float`): Mean over seeds and items.
        seed_stderr (`float` or `None`): Standard error from the choice of seeds; `None` with one seed.
        item_stderr (`float` or `None`): Standard error from the choice of items; `None` with one item.
        low (`float` or `None`): Lower end of the interval from both sources.
        high (`float` or `None`): Upper end.
        seeds (`int`): How many seeds.
        n (`int`): How many items.
        clusters (`int`): How many clusters of items, or `n` where items count as independent.
    """

    value: float
    seed_stderr: float | None
    item_stderr: float | None
    low: float | None
    high: float | None
    seeds: int
    n: int
    clusters: int


@dataclass(frozen=True)
class PairedTest:
    """An exact test of which of two models does better on the same items.

    Args:
        better (`int`): Items on which the first does better.
        worse (`int`): Items on which the second does better.
        ties (`int`): Items on which neither does.
        p_value (`float`): Two-sided.
    """

    better: int
    worse: int
    ties: int
    p_value: float
