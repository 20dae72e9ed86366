"""What a chart shows, in sentences: the text alternative of pictures for those who do not see them."""

from __future__ import annotations

from collections.abc import Mapping

from ..records import ReportData
from ..text import compact_ranges
from .tables import particle_sentence
from .units import number


def layers(report: ReportData) -> str:
    """The two charts of a report: Layer Sensitivity and lens probability by layer."""
    scores, lens, plan = report.first.sensitivity, report.first.lens, report.plan
    worst = scores.vulnerable_layer
    said = (
        f"Layer Sensitivity of {report.num_layers} layers runs from {number(min(scores.mean))} to "
        f"{number(max(scores.mean))} bits and is highest at layer {worst}"
    )
    said += f", which cannot be told from {compact_ranges(scores.rivals)}. " if scores.rivals else ". "
    if lens.mean_probability:
        said += (
            f"The lens probability of the right answer ends at {number(lens.mean_probability[-1])}. Task Particle: "
            f"{particle_sentence(report)}. "
        )
    else:
        said += "The lens is not valid for this model. "
    return said + (f"The plan trains layers {compact_ranges(plan.trained_layers)}. " if plan else "")


def curves(reports: Mapping[str, ReportData]) -> str:
    """The charts of several reports beside each other."""
    parts = []
    for name, report in reports.items():
        scores = report.first.sensitivity
        depth = report.relative_depth(scores.vulnerable_layer)
        parts.append(
            f"{name}: Layer Sensitivity is highest, {number(scores.highest)} bits, at relative depth {number(depth, 2)}; "
            f"Task Particle {particle_sentence(report)}."
        )
    return " ".join(parts)
