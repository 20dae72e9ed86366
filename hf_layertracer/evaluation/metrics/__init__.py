"""Metrics for the library `evaluate`, each its own script: `evaluate.load(metric_path("paired_accuracy"))`."""

from __future__ import annotations

from pathlib import Path

from ...errors import LayerTracerError


def metric_path(name: str) -> str:
    """Where a metric's script lies: `evaluate.load` takes the path, and needs no network for it.

    Args:
        name (`str`):
            `"paired_accuracy"`, `"exact_paired_test"`, `"average_relative_improvement"`, `"learning"` or
            `"forgetting"`.

    Returns:
        `str`: The path.

    Raises:
        LayerTracerError: There is no such metric.

    Example:

    ```python
    import evaluate

    from hf_layertracer.evaluation.metrics import metric_path

    metric = evaluate.load(metric_path("learning"))
    metric.compute(predictions=[1, 1, 0, 1], references=[0, 1, 0, 0], groups=["law", "law", "art", "art"])
    ```
    """
    scripts = {path.stem: str(path) for path in Path(__file__).parent.glob("[!_]*.py")}
    if name not in scripts:
        raise LayerTracerError(f"There is no metric {name!r}, only {', '.join(sorted(scripts))}.")
    return scripts[name]
