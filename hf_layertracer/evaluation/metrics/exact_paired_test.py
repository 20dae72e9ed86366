"""Exact paired test: a script for `evaluate.load`, which takes one import a line."""

from __future__ import annotations

import dataclasses

import datasets
import evaluate

from hf_layertracer.evaluation.statistics import exact_paired_test


_DESCRIPTION = """McNemar's exact test for right and wrong answers, the sign test for real scores: for few items."""
_INPUTS = """
Args:
    predictions (`list[float]`): Scores of the model.
    references (`list[float]`): Scores of the model to compare with, on the same items.

Returns:
    `dict`: `better`, `worse`, `ties` and the two-sided `p_value`.
"""


class ExactPairedTest(evaluate.Metric):
    """McNemar's exact test, or the sign test."""

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": number, "references": number}),
        )

    def _compute(self, predictions, references):
        return dataclasses.asdict(exact_paired_test(predictions, references))
