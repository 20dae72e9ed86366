"""What the strategies share that freeze a fraction of the layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np

from ...errors import LayerTracerError
from ...text import with_error
from .base import PlanInputs, option


@dataclass(frozen=True)
class RatioOptions:
    """How many layers to freeze.

    Args:
        freeze_ratio (`float`, *optional*, defaults to `0.5`):
            Fraction of the layers to freeze; the nearest whole number of layers is frozen, a half is rounded up.
    """

    freeze_ratio: float = option(0.5, "Fraction of the layers to freeze.", slider=(0.05, 0.95, 0.05))

    def __post_init__(self) -> None:
        if not isinstance(self.freeze_ratio, Real) or not 0 < self.freeze_ratio < 1:
            raise LayerTracerError(
                f"freeze_ratio must lie between 0 and 1, not at {self.freeze_ratio!r}. To freeze nothing, use the "
                "strategy 'full'."
            )

    def number_frozen(self, num_layers: int) -> int:
        """How many layers to freeze.

        Args:
            num_layers (`int`): How many there are.

        Returns:
            `int`: At least 1, and less than all.

        Raises:
            LayerTracerError: All or none would be frozen.
        """
        count = math.floor(num_layers * self.freeze_ratio + 0.5)
        if count in (0, num_layers):
            what = "freeze no layer" if count == 0 else "train no layer"
            raise LayerTracerError(f"freeze_ratio={self.freeze_ratio:g} would {what} of the {num_layers}.")
        return count

    def highest(self, scores: Sequence[float]) -> set[int]:
        """The layers with the highest scores, without those to freeze. Of equal scores, the shallower layers train.

        Args:
            scores (`Sequence[float]`): One a layer.

        Returns:
            `set[int]`: Layers to train.
        """
        count = len(scores) - self.number_frozen(len(scores))
        return {int(layer) for layer in np.argsort(-np.asarray(scores), kind="stable")[:count]}


@dataclass(frozen=True)
class MeasureOptions(RatioOptions):
    """How many layers to freeze, and by which measurement.

    Args:
        freeze_ratio (`float`, *optional*, defaults to `0.5`):
            Fraction of the layers to freeze; the nearest whole number of layers is frozen, a half is rounded up.
        measure (`str`, *optional*):
            A perturbation that was measured (`"skip"`, `"mask"`, `"mixer"`, ...) or `"context"`; by default `"skip"`, or
            the first of the report.
    """

    measure: str | None = option(None, "The measurement that counts: skip, mask, mixer, noise or context.")


def what_was_measured(inputs: PlanInputs, trained: set[int]) -> str:
    """What the measurement says of an allocation, so that nobody has to take a rule on trust."""
    if inputs.report is None:
        return "Nothing was measured on this model."
    scores, frozen = inputs.report.sensitivity, set(range(inputs.num_layers)) - trained
    ours, others = scores.mean_over(trained), scores.mean_over(frozen)
    difference = scores.difference(trained, frozen)
    if difference.beyond_error is None:
        verdict = "the report does not hold the error of this difference"
    else:
        size = with_error(difference.value, difference.stderr, sign=True)
        more = f"the trained ones are {'more' if difference.value > 0 else 'less'} sensitive"
        verdict = f"{more if difference.beyond_error else 'no difference beyond the error of measurement'} ({size})"
    return (
        f"On this model the trained layers have a mean sensitivity of {with_error(ours)} bits and the frozen ones of "
        f"{with_error(others)}: {verdict}."
    )
