"""Paired difference of accuracy: a script for `evaluate.load`, which takes one import a line."""

from __future__ import annotations

from hf_layertracer.evaluation import paired_metric
from hf_layertracer.evaluation.statistics import paired_difference


class PairedAccuracy(paired_metric.PairedMetric):
    """Difference of two accuracies, clustered by subject."""

    description = """Difference of two models' accuracies on the same items, with a standard error clustered
    by subject (Miller, arXiv 2411.00640) and an interval that holds for few items."""
    inputs = """
    Args:
        predictions (`list[float]`): 1 where the model is right, 0 where it is wrong.
        references (`list[float]`): The same of the model to compare with.
        groups (`list[str]`, *optional*): The cluster of each item, such as its subject.
        level (`float`, *optional*, defaults to `0.95`): Coverage of the interval.

    Returns:
        `dict`: `value`, `stderr`, `low`, `high`, `n` and `clusters`.
    """
    citation = paired_metric.MILLER
    compare = paired_difference
