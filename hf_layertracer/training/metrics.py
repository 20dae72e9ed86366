"""What the trackers of a training run are shown."""

from __future__ import annotations

from ..planning import AppliedPlan
from ..records import Diagnosis, LayerPlan, ReportData


def metrics_of(report: ReportData, applied: AppliedPlan, later: Diagnosis | None = None) -> dict[str, float]:
    """Numbers for the trackers: of a later diagnosis, or of the first one with the plan.

    Args:
        report ([`ReportData`]): The run's report.
        applied ([`AppliedPlan`]): The plan in force.
        later ([`Diagnosis`], *optional*): The later diagnosis.

    Returns:
        `dict[str, float]`: Names begin with `layertracer/`.
    """
    diagnosis = later or report.first
    values = _measured(diagnosis, report.plan) if diagnosis is not None else {}
    if later is None:
        values |= {
            "trained_layers": len(report.plan.trained_layers),
            "trainable_parameters": applied.trainable_parameters,
        }
    return {f"layertracer/{name}": value for name, value in values.items()}


def _measured(diagnosis: Diagnosis, plan: LayerPlan) -> dict[str, float]:
    figures = diagnosis.headline()
    values = {
        "probe_accuracy": figures["accuracy"],
        "probe_log_probability": figures["mean_log_probability"],
        "vulnerable_layer": figures["vulnerable_layer"],
        "sensitivity": figures["mean_sensitivity"],
    }
    if figures["task_particle"] is not None:
        values["task_particle"] = figures["task_particle"]
    for name, layers in (("trained", plan.trained_layers), ("frozen", plan.frozen_layers)):
        if layers:
            values[f"sensitivity_{name}"] = diagnosis.sensitivity.mean_over(layers)
    return values
