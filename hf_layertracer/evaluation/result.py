"""What came of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import (
    Any,
    NotRequired,  # pydantic, whose dependency it is, wants its TypedDict
)

from pydantic import BaseModel
from typing_extensions import TypedDict


# Metrics that are means over items, and the field that holds an item's part: these can be compared item by item.
PAIRED_METRICS = {"bits_per_byte": "value", "mean_log_probability": "value", "accuracy": "correct", "acc": "correct"}


class EvaluationItem(TypedDict):
    """One block of text, one probe or one question.

    Args:
        set (`str`): `"new"`, `"old"`, `"probes"` or the name of the task.
        item (`str`): Which one; the same in every evaluation of the same set, so that two models can be paired.
        group (`str`): The cluster that it belongs to: a document, the task of a probe, a subject.
        correct (`bool`): Of a probe or a question: whether the model had it right.
        value (`float`): Of a block: bits per byte. Of a probe: log-probability of the target.
        bytes (`int`): Of a block: how many bytes of UTF-8 it holds.
        tokens (`int`): Of a block: how many tokens it holds.
    """

    set: str
    item: str
    group: str
    correct: NotRequired[bool]
    value: NotRequired[float]
    bytes: NotRequired[int]
    tokens: NotRequired[int]


class EvaluationResult(BaseModel):
    """What came of an evaluation.

    Args:
        metrics (`dict[str, float]`):
            Numbers by name: `new/bits_per_byte`, `new/perplexity`, `old/...`, `probes/accuracy`,
            `probes/mean_log_probability`, `<task>/acc`.
        n (`dict[str, int]`): For each metric, how many items it is computed from.
        chance (`dict[str, float]`): What guessing gives, for each metric where that is known.
        protocols (`dict[str, str]`): For each set, how its numbers are computed.
        items (`list[EvaluationItem]`): One entry a block, probe and question.
        notes (`list[str]`): What a reader should know.
    """

    metrics: dict[str, float] = {}
    n: dict[str, int] = {}
    chance: dict[str, float] = {}
    protocols: dict[str, str] = {}
    items: list[EvaluationItem] = []
    notes: list[str] = []

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON; `EvaluationResult(**values)` reads it back."""
        return self.model_dump(mode="json")


def not_finite(metrics: Mapping[str, float]) -> str | None:
    """The first metric that is no finite number, as those of a model whose training diverged.

    Args:
        metrics (`Mapping[str, float]`): Numbers by name.

    Returns:
        `str` or `None`: Its name; `None` where all are finite.
    """
    return next((name for name, value in metrics.items() if not math.isfinite(value)), None)
