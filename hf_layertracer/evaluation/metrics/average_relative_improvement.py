"""Average relative improvement: a script for `evaluate.load`, which takes one import a line."""

from __future__ import annotations

import datasets
import evaluate

from hf_layertracer.evaluation.statistics import average_relative_improvement


_DESCRIPTION = """Mean of score / baseline - 1 over benchmarks, as arXiv 2605.11416 computes its headline.
It has no error, and next to chance a ratio says little: see paired_accuracy."""
_INPUTS = """
Args:
    predictions (`list[float]`): Scores, one a benchmark.
    references (`list[float]`): Scores to compare with, above 0.

Returns:
    `dict`: `average_relative_improvement`.
"""


class AverageRelativeImprovement(evaluate.Metric):
    """Mean of score / baseline - 1."""

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": number, "references": number}),
        )

    def _compute(self, predictions, references):
        return {"average_relative_improvement": average_relative_improvement(predictions, references)}
