"""Learning: a script for `evaluate.load`, which takes one import a line."""

from __future__ import annotations

from hf_layertracer.evaluation import paired_metric
from hf_layertracer.evaluation.statistics import learning


class Learning(paired_metric.PairedMetric):
    """How much better a model became on the new domain."""

    description = """How much better a model became on the new domain, item by item,
    with a clustered standard error (Miller, arXiv 2411.00640) and an interval."""
    inputs = paired_metric.CHANGE_INPUTS
    citation = paired_metric.MILLER
    compare = learning
