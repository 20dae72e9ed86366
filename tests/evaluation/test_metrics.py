"""The metrics as anybody loads them: by path, without the Hub."""

from __future__ import annotations

import dataclasses

import pytest

from hf_layertracer.errors import LayerTracerError
from hf_layertracer.evaluation import statistics
from hf_layertracer.evaluation.metrics import metric_path


evaluate = pytest.importorskip("evaluate")

AFTER, BEFORE, SUBJECTS = [1, 1, 0, 1, 0, 1], [1, 0, 0, 0, 1, 0], ["law", "law", "art", "art", "tax", "tax"]


def load(name: str, tmp_path, monkeypatch) -> evaluate.Metric:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return evaluate.load(metric_path(name), cache_dir=str(tmp_path))


@pytest.mark.parametrize(
    ("name", "function", "options"),
    [
        ("paired_accuracy", statistics.paired_difference, {"groups": SUBJECTS}),
        ("paired_accuracy", statistics.paired_difference, {"level": 0.9}),
        ("exact_paired_test", statistics.exact_paired_test, {}),
        ("learning", statistics.learning, {"groups": SUBJECTS, "weights": [1, 2, 3, 4, 5, 6]}),
        ("forgetting", statistics.forgetting, {"lower_is_better": True}),
    ],
)
def test_a_metric_gives_what_its_function_gives(name, function, options, tmp_path, monkeypatch):
    metric = load(name, tmp_path, monkeypatch)
    computed = metric.compute(predictions=AFTER, references=BEFORE, **options)
    assert computed == dataclasses.asdict(function(AFTER, BEFORE, **options))
    assert isinstance(metric, evaluate.Metric)


def test_scores_can_come_in_batches(tmp_path, monkeypatch):
    metric = load("average_relative_improvement", tmp_path, monkeypatch)
    metric.add_batch(predictions=[29.40], references=[25.39])
    metric.add_batch(predictions=[29.55], references=[25.55])
    assert metric.compute() == {"average_relative_improvement": pytest.approx(0.1572, abs=1e-4)}


def test_an_unknown_metric_is_answered_with_those_there_are():
    with pytest.raises(LayerTracerError, match="no metric 'f1', only average_relative_improvement, exact_paired_test"):
        metric_path("f1")
