"""Learned against forgotten: what the pictures of a trial show."""

from __future__ import annotations

from pydantic import BaseModel, Field

from ..evaluation.estimates import SeedEstimate
from .results import TrialsResult
from .summary import Summary


class Change(BaseModel):
    """A difference to the untouched model.

    Args:
        value (`float`): Mean over seeds and items.
        low (`float` or `None`): Lower end of its 95 % interval; `None` where that is not known.
        high (`float` or `None`): Upper end.
    """

    value: float = Field(allow_inf_nan=False)
    low: float | None = Field(allow_inf_nan=False)
    high: float | None = Field(allow_inf_nan=False)


class TradeOff(BaseModel):
    """What each arm learned and forgot.

    Args:
        learn (`str`): Metric of what was to be learned.
        forget (`str`): Metric of what was known.
        at_chance (`list[str]`): Which of them the untouched model cannot be told from guessing by.
        points (`dict[str, tuple[Change, Change]]`): For each arm what it learned and what it forgot.
    """

    learn: str
    forget: str
    at_chance: list[str]
    points: dict[str, tuple[Change, Change]]

    @property
    def title(self) -> str:
        """How to read a picture, or that it says nothing."""
        if self.at_chance:
            return f"Grey: the untouched model is at chance on {' and '.join(self.at_chance)}; differences say nothing"
        return "Up is more learned, left is less forgotten; bars: 95 % intervals"


def trade_off(result: TrialsResult) -> TradeOff | None:
    """Learned against forgotten for each arm.

    Args:
        result ([`TrialsResult`]): The trial.

    Returns:
        [`TradeOff`] or `None`: `None` where no arm has both numbers.
    """
    if result.untouched is None:
        return None
    summary, points = Summary(result), {}
    for arm in summary.arms:
        learned, forgotten = summary.learned(arm), summary.forgotten(arm)
        if learned is not None and forgotten is not None:
            points[arm] = (_change(learned), _change(forgotten))
    if not points:
        return None
    learn, forget = summary.objective.learn, summary.objective.forget
    at_chance = [metric for metric in dict.fromkeys((learn, forget)) if summary.at_chance(metric)]
    return TradeOff(learn=learn, forget=forget, at_chance=at_chance, points=points)


def _change(estimate: SeedEstimate) -> Change:
    return Change(value=estimate.value, low=estimate.low, high=estimate.high)
