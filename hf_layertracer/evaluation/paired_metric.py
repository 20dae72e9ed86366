"""What the metrics of this package that compare two models item by item have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import datasets
import evaluate


MILLER = """Evan Miller: Adding Error Bars to Evals: A Statistical Approach to Language Model Evaluations.
arXiv 2411.00640, 2024."""
CHANGE_INPUTS = """
Args:
    predictions (`list[float]`): Scores after training.
    references (`list[float]`): Scores of the untouched model on the same items.
    groups (`list[str]`, *optional*): The cluster of each item, such as its subject.
    weights (`list[float]`, *optional*): Weights of the items, such as bytes.
    lower_is_better (`bool`, *optional*, defaults to `False`): For bits per byte and losses.
    level (`float`, *optional*, defaults to `0.95`): Coverage of the interval.

Returns:
    `dict`: `value`, `stderr`, `low`, `high`, `n` and `clusters`.
"""


class PairedMetric(evaluate.Metric):
    """A metric of two lists of scores; a subclass says what it computes, and with which function.

    Attributes:
        description (`str`): What it says.
        inputs (`str`): Its arguments and results, as a docstring describes them.
        citation (`str`): What to cite.
        compare (`Callable`): Takes both lists and options, returns a dataclass.
    """

    description: ClassVar[str]
    inputs: ClassVar[str]
    citation: ClassVar[str] = ""
    compare: ClassVar[Callable[..., Any]]

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=type(self).description,
            citation=type(self).citation,
            inputs_description=type(self).inputs,
            features=datasets.Features({"predictions": number, "references": number}),
        )

    def _compute(self, predictions: Sequence[float], references: Sequence[float], **options: Any) -> dict[str, Any]:
        return asdict(type(self).compare(predictions, references, **options))
