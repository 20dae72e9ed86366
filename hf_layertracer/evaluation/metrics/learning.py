"""Learning: a script for `evaluate.load`, which takes one import a line."""

from __future__ import annotations

import dataclasses

import datasets
import evaluate

from hf_layertracer.evaluation.statistics import learning


_DESCRIPTION = """How much better a model became on the new domain, item by item,
with a clustered standard error (Miller, arXiv 2411.00640) and an interval."""
_INPUTS = """
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
_CITATION = """Evan Miller: Adding Error Bars to Evals: A Statistical Approach to Language Model Evaluations.
arXiv 2411.00640, 2024."""


class Learning(evaluate.Metric):
    """How much better a model became on the new domain."""

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": number, "references": number}),
        )

    def _compute(self, predictions, references, groups=None, weights=None, lower_is_better=False, level=0.95):
        return dataclasses.asdict(learning(predictions, references, groups, weights, lower_is_better, level))
