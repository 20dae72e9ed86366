"""Paired difference of accuracy: a script for `evaluate.load`, which takes one import a line."""

from __future__ import annotations

import dataclasses

import datasets
import evaluate

from hf_layertracer.evaluation.statistics import paired_difference


_DESCRIPTION = """Difference of two models' accuracies on the same items, with a standard error clustered
by subject (Miller, arXiv 2411.00640) and an interval that holds for few items."""
_INPUTS = """
Args:
    predictions (`list[float]`): 1 where the model is right, 0 where it is wrong.
    references (`list[float]`): The same of the model to compare with.
    groups (`list[str]`, *optional*): The cluster of each item, such as its subject.
    level (`float`, *optional*, defaults to `0.95`): Coverage of the interval.

Returns:
    `dict`: `value`, `stderr`, `low`, `high`, `n` and `clusters`.
"""
_CITATION = """Evan Miller: Adding Error Bars to Evals: A Statistical Approach to Language Model Evaluations.
arXiv 2411.00640, 2024."""


class PairedAccuracy(evaluate.Metric):
    """Difference of two accuracies, clustered by subject."""

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": number, "references": number}),
        )

    def _compute(self, predictions, references, groups=None, level=0.95):
        return dataclasses.asdict(paired_difference(predictions, references, groups, level=level))
