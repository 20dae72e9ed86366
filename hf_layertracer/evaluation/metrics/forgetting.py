"""Forgetting: a script for `evaluate.load`, which takes one import a line."""

from __future__ import annotations

from hf_layertracer.evaluation import paired_metric
from hf_layertracer.evaluation.statistics import forgetting


class Forgetting(paired_metric.PairedMetric):
    """How much worse a model became on what it knew before."""

    description = """How much worse a model became on what it knew before, item by item,
    with a clustered standard error (Miller, arXiv 2411.00640) and an interval."""
    inputs = paired_metric.CHANGE_INPUTS
    citation = paired_metric.MILLER
    compare = forgetting
