"""What a training run tells its trackers and the readers of its log."""

from __future__ import annotations

from pathlib import Path

from ..planning import AppliedPlan
from ..records import Diagnosis, LayerPlan, ReportData
from ..text import compact_ranges, with_error


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
    named = {f"layertracer/{name}": value for name, value in values.items()}
    return named if later is not None else named | trained_metrics(applied)


def trained_metrics(applied: AppliedPlan) -> dict[str, float]:
    """How much trains now, for the trackers.

    Args:
        applied ([`AppliedPlan`]): The plan in force.

    Returns:
        `dict[str, float]`: Names begin with `layertracer/`.
    """
    return {
        "layertracer/trained_layers": len(applied.plan.trained_layers),
        "layertracer/trainable_parameters": applied.trainable_parameters,
    }


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


def plan_line(report: ReportData, applied: AppliedPlan, path: Path) -> str:
    """What is frozen, why, what was not measured and where to read on, in one line.

    Args:
        report ([`ReportData`]): The run's report.
        applied ([`AppliedPlan`]): The plan in force.
        path (`Path`): Where the report will lie.

    Returns:
        `str`: The line.
    """
    plan = report.plan
    frozen = compact_ranges(plan.frozen_layers)
    share = applied.trainable_parameters / max(plan.savings.total_parameters, 1)
    unmeasured = "" if report.is_measured else f" {' '.join(report.notes)}"
    return (
        f"LayerTracer ({plan.strategy}) freezes layers {frozen} of {plan.num_layers} in {plan.layers_path!r}; "
        f"{applied.trainable_parameters:,} parameters train ({share:.0%}). {plan.reason}{unmeasured}"
        f"{_vulnerable(report, plan)} Report: {path}"
    )


def _vulnerable(report: ReportData, plan: LayerPlan) -> str:
    if not report.is_measured or report.sensitivity.vulnerable_layer not in plan.frozen_layers:
        return ""
    sensitivity = report.sensitivity
    error = sensitivity.stderr[sensitivity.vulnerable_layer] if sensitivity.stderr_known else None
    size = with_error(sensitivity.highest, error)
    return f" The most sensitive layer, {sensitivity.vulnerable_layer} ({size} bits), is among the frozen ones."
