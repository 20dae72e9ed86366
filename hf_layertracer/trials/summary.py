"""Fair numbers out of runs: means over seeds, differences with both errors, and what may be called a difference."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..evaluation.estimates import Interval, SeedEstimate
from ..evaluation.result import PAIRED_METRICS
from ..evaluation.statistics import accuracy, average_relative_improvement, paired_difference_over_seeds
from .config import UNTOUCHED, ObjectiveConfig
from .results import TrialsResult


_LOWER_IS_BETTER = ("bits_per_byte", "perplexity")
NO_DIFFERENCE = "no difference found"


@dataclass(frozen=True)
class MetricMean:
    """A metric of an arm, over its seeds.

    Args:
        mean (`float`): Mean over seeds.
        seed_stderr (`float` or `None`): Standard error from the choice of seeds; `None` with one seed.
        seeds (`int`): How many.
    """

    mean: float
    seed_stderr: float | None
    seeds: int


@dataclass(frozen=True)
class Score:
    """An arm's value by the user's own objective.

    Args:
        value (`float`): `w_learn * learned - w_forget * forgotten`, mean over seeds.
        stderr (`float` or `None`): Standard error from seeds and items; `None` where that of the items is not known.
    """

    value: float
    stderr: float | None


@dataclass(frozen=True)
class Lead(Interval):
    """How far one arm is ahead of another by the user's own objective, item by item.

    Args:
        value (`float`): The difference of their scores.
        low (`float` or `None`): Lower end of the 95 % interval; `None` where a single item says nothing.
        high (`float` or `None`): Upper end.
    """

    value: float
    low: float | None
    high: float | None


class Summary:
    """What a trial's runs say.

    Args:
        result ([`TrialsResult`]): The runs, among them the untouched model.
    """

    def __init__(self, result: TrialsResult):
        self._result = result
        self._base = result.untouched
        self.arms = [name for name in result.arm_names if result.runs_of(name)]
        objective = result.config.get("objective")
        self.objective = ObjectiveConfig(**(objective or {}))
        self.has_objective = objective is not None

    @property
    def metrics(self) -> list[str]:
        """Names of all metrics, in the order of evaluation."""
        return list(dict.fromkeys(name for unit in self._result.units for name in unit["evaluation"]["metrics"]))

    def chance(self, metric: str) -> float | None:
        """What guessing gives, where that is known."""
        return self._base["evaluation"]["chance"].get(metric) if self._base else None

    def n(self, metric: str) -> int | None:
        """How many items a metric is computed from."""
        return self._base["evaluation"]["n"].get(metric) if self._base else None

    def at_chance(self, metric: str) -> bool:
        """Whether the untouched model cannot be told from guessing: then differences say nothing of knowledge."""
        # Whether the questions are answered or guessed is seen in the accuracy, whichever metric is looked at.
        answers = f"{metric.rpartition('/')[0]}/acc"
        metric = metric if self.chance(answers) is None else answers
        chance = self.chance(metric)
        if chance is None:
            return False
        items = _items(self._base, metric)
        if items is None or not np.isin(items.values, (0, 1)).all():
            return self._base["evaluation"]["metrics"][metric] <= chance
        return not accuracy(items.values, items.groups).low > chance

    def mean(self, arm: str, metric: str, seeds: Collection[int | None] | None = None) -> MetricMean | None:
        """A metric of an arm, or of the untouched model, over its seeds or those of them that are named."""
        runs = [run for run in self._result.runs_of(arm) if seeds is None or run["seed"] in seeds]
        values = [run["evaluation"]["metrics"][metric] for run in runs if metric in run["evaluation"]["metrics"]]
        if not values:
            return None
        stderr = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
        return MetricMean(float(np.mean(values)), stderr, len(values))

    def gain(self, arm: str, metric: str, against: str = UNTOUCHED) -> SeedEstimate | None:
        """How much better an arm is than another, or than the untouched model, item by item.

        Args:
            arm (`str`): The arm.
            metric (`str`): A metric that is a mean over items.
            against (`str`, *optional*): What to compare with.

        Returns:
            [`SeedEstimate`] or `None`: Positive where the arm is better, whichever way the metric points; `None` where
                one of the two has no such items.
        """
        ours, theirs = self._scores(arm, metric), self._scores(against, metric)
        if ours is None or theirs is None:
            return None
        if against == UNTOUCHED:
            scores, baseline = ours.over(ours.seeds), theirs.over([None])
        else:
            common = [seed for seed in ours.seeds if seed in theirs.seeds]
            if not common:
                return None
            scores, baseline = ours.over(common), theirs.over(common)
        if _points_down(metric):
            scores, baseline = -scores, -baseline
        return paired_difference_over_seeds(scores, baseline, ours.groups, ours.weights)

    def learned(self, arm: str) -> SeedEstimate | None:
        """Improvement on what was to be learned, against the untouched model."""
        return self.gain(arm, self.objective.learn)

    def forgotten(self, arm: str) -> SeedEstimate | None:
        """Decline on what was known, against the untouched model: positive where it forgot."""
        gain = self.gain(arm, self.objective.forget)
        return None if gain is None else _negative(gain)

    def relative_improvement(self, arm: str, metrics: Sequence[str], against: str) -> float | None:
        """Mean over metrics of how many times better an arm is than another, less one, as the paper's headline is made.

        Args:
            arm (`str`): The arm.
            metrics (`Sequence[str]`): Accuracies, and metrics of text, of which less is better.
            against (`str`): What to compare with.

        Returns:
            `float` or `None`: 0.1 stands for 10 %; `None` where a mean is missing or not above 0.
        """
        ours, theirs = [], []
        # As for every other difference: a run that failed leaves its seed out on both sides.
        seeds = [{run["seed"] for run in self._result.runs_of(name)} for name in (arm, against)]
        common = None if against == UNTOUCHED else seeds[0] & seeds[1]
        for metric in metrics:
            pair = [self.mean(name, metric, common) for name in (arm, against)]
            if any(mean is None or mean.mean <= 0 for mean in pair):
                return None
            values = [mean.mean for mean in pair if mean is not None]
            # Where less is better, half of it is twice as good.
            own, other = reversed(values) if _points_down(metric) else values
            ours.append(own)
            theirs.append(other)
        return average_relative_improvement(ours, theirs) if ours else None

    def score(self, arm: str) -> Score | None:
        """The arm's value by the objective; `None` where there is no data for it."""
        parts = []
        for weight, metric in self._weighted():
            gain, by_seed = self.gain(arm, metric), self._gain_by_seed(arm, metric)
            if gain is None or by_seed is None:
                return None
            parts.append((weight, gain, by_seed))
        if not parts:
            return None
        seeds = sum(weight * by_seed for weight, _, by_seed in parts)
        errors = [weight * gain.item_stderr for weight, gain, _ in parts if gain.item_stderr is not None]
        if len(errors) < len(parts):
            return Score(float(seeds.mean()), None)
        # Texts of two sets are different items; their errors are independent.
        variance = sum(error**2 for error in errors)
        if len(seeds) > 1:
            variance += float(seeds.var(ddof=1)) / len(seeds)
        return Score(float(seeds.mean()), math.sqrt(variance))

    def lead(self, first: str, second: str) -> Lead | None:
        """How far one arm is ahead of another by the objective.

        Args:
            first (`str`): An arm.
            second (`str`): The arm that it is compared with, with the same seeds on the same items.

        Returns:
            [`Lead`] or `None`: Positive where the first is better; `None` where there is no data for it.
        """
        value, below, above = 0.0, 0.0, 0.0
        is_known = True
        for weight, metric in self._weighted():
            gain = self.gain(first, metric, second)
            if gain is None:
                return None
            value += weight * gain.value
            if gain.low is None or gain.high is None:
                is_known = False
                continue
            # Both parts come from the same runs: their errors may go together, so they are added in full.
            below += weight * (gain.value - gain.low)
            above += weight * (gain.high - gain.value)
        return Lead(value, value - below, value + above) if is_known else Lead(value, None, None)

    def objective_at_chance(self) -> str | None:
        """A metric of the objective on which the untouched model is at chance: ranking by it would rank noise."""
        return next((metric for _, metric in self._weighted() if self.at_chance(metric)), None)

    def ranking(self) -> list[str]:
        """Arms by the objective, the best first; those without data for it are left out."""
        scores = {arm: score.value for arm in self.arms if (score := self.score(arm)) is not None}
        return sorted(scores, key=lambda arm: -scores[arm])

    def reference(self) -> str | None:
        """The arm that others are compared with: full training, or else the first."""
        full = [entry["arm"]["name"] for entry in self._result.arms if entry["arm"]["strategy"] == "full"]
        return next((name for name in [*full, *self.arms] if name in self.arms), None)

    def not_compared(self) -> list[str]:
        """Runs whose items are not those of the untouched model, of which nothing else is said than "no data"."""
        if self._base is None:
            return []
        sets = dict.fromkeys(item["set"] for item in self._base["evaluation"]["items"])
        return [
            f"{arm} with seed {run['seed']} was evaluated on other items of {name} than the untouched model, so it is not "
            "compared there."
            for arm in self.arms
            for run in self._result.runs_of(arm)
            for name in sets
            if _names(run, name) != _names(self._base, name)
        ]

    def _weighted(self) -> list[tuple[float, str]]:
        """The objective's metrics that count, with their weights."""
        parts = ((self.objective.w_learn, self.objective.learn), (self.objective.w_forget, self.objective.forget))
        return [(weight, metric) for weight, metric in parts if weight]

    def _gain_by_seed(self, arm: str, metric: str) -> np.ndarray | None:
        ours, theirs = self._scores(arm, metric), self._scores(UNTOUCHED, metric)
        if ours is None or theirs is None:
            return None
        sign = -1 if _points_down(metric) else 1
        difference = sign * (ours.over(ours.seeds) - theirs.over([None]))
        return np.average(difference, axis=1, weights=ours.weights)

    def _scores(self, arm: str, metric: str) -> _Scores | None:
        reference = _items(self._base, metric) if self._base else None
        if reference is None:
            return None
        by_seed = {}
        for run in self._result.runs_of(arm):
            items = _items(run, metric)
            if items is not None and items.names == reference.names:
                by_seed[run["seed"]] = items.values
        return _Scores(by_seed, reference.groups, reference.weights) if by_seed else None


def verdict(difference: SeedEstimate | None, better: str = "better", worse: str = "worse") -> str:
    """What may be said of a difference, in words.

    Args:
        difference ([`SeedEstimate`], *optional*): The difference.
        better, worse (`str`, *optional*): The words for a positive and for a negative one.

    Returns:
        `str`: One of the words, or that no difference was found.
    """
    if difference is None:
        return "no data"
    if not difference.excludes_zero:
        return NO_DIFFERENCE
    return better if difference.value > 0 else worse


@dataclass(frozen=True)
class _Items:
    names: tuple[str, ...]
    values: np.ndarray
    groups: list[str]
    weights: np.ndarray | None


@dataclass(frozen=True)
class _Scores:
    by_seed: dict[int | None, np.ndarray]
    groups: list[str]
    weights: np.ndarray | None

    @property
    def seeds(self) -> list[int | None]:
        return list(self.by_seed)

    def over(self, seeds: Sequence[int | None]) -> np.ndarray:
        return np.stack([self.by_seed[seed] for seed in seeds])


def _items(run: dict[str, Any], metric: str) -> _Items | None:
    """The items whose mean a metric is."""
    name, _, kind = metric.rpartition("/")
    field = PAIRED_METRICS.get(kind)
    items = [item for item in run["evaluation"]["items"] if item["set"] == name and item.get(field) is not None]
    if field is None or not items:
        return None
    return _Items(
        tuple(item["item"] for item in items),
        np.array([float(item[field]) for item in items]),
        [item["group"] for item in items],
        np.array([item["bytes"] for item in items], float) if kind == "bits_per_byte" else None,
    )


def _names(run: dict[str, Any], name: str) -> list[str]:
    return [item["item"] for item in run["evaluation"]["items"] if item["set"] == name]


def _points_down(metric: str) -> bool:
    return metric.rpartition("/")[2] in _LOWER_IS_BETTER


def _negative(estimate: SeedEstimate) -> SeedEstimate:
    low, high = estimate.low, estimate.high
    return SeedEstimate(
        -estimate.value,
        estimate.seed_stderr,
        estimate.item_stderr,
        None if high is None else -high,
        None if low is None else -low,
        estimate.seeds,
        estimate.n,
        estimate.clusters,
    )
