"""Exact paired test: a script for `evaluate.load`, which takes one import a line."""

from __future__ import annotations

from hf_layertracer.evaluation import paired_metric
from hf_layertracer.evaluation.statistics import exact_paired_test


class ExactPairedTest(paired_metric.PairedMetric):
    """McNemar's exact test, or the sign test."""

    description = """McNemar's exact test for right and wrong answers, the sign test for real scores: for few items."""
    inputs = """
    Args:
        predictions (`list[float]`): Scores of the model.
        references (`list[float]`): Scores of the model to compare with, on the same items.

    Returns:
        `dict`: `better`, `worse`, `ties` and the two-sided `p_value`.
    """
    compare = exact_paired_test
