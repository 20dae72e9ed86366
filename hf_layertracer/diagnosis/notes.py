"""What the numbers of a diagnosis do not say by themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..records import ReportData, Sensitivity
from ..text import compact_ranges, with_error


_FLOOR = 0.01  # bits
_SATURATED = 0.9  # bits


def notes_of(report: ReportData, not_run: Sequence[int]) -> list[str]:
    """What a reader must know to read the numbers right.

    Args:
        report ([`ReportData`]): The measurements.
        not_run (`Sequence[int]`): The layers that text alone does not run.

    Returns:
        `list[str]`: Sentences.
    """
    particle = report.task_particle
    notes = []
    if not_run:
        notes.append(
            f"Layers {list(not_run)} do not run on text alone. Their values are those of the hidden state that passes by."
        )
    measured = report.latest.sensitivities
    floor = report.latest.noise_floor
    if floor is not None and floor > min(
        _FLOOR, 0.1 * min(max(sensitivity.mean) for sensitivity in measured.values())
    ):
        notes.append(
            f"Rounding alone moves the output of this model by {floor:.2g} bits on average, or it is random: nothing below "
            "that says anything about a layer."
        )
    for name, sensitivity in measured.items():
        found = _sensitivity_notes(sensitivity, [layer.kind for layer in report.model.layers])
        notes += [f"Perturbation {name}: {note}" for note in found] if len(measured) > 1 else found
    control = report.lens.control
    if control is not None and control.layers:
        notes.append(
            f"At layers {control.layers} the lens probability of the targets rises no more than that of other probes' "
            "targets on the same prompts: what rises there is the kind of answer, not the answer."
        )
    if control is not None and control.unsupported:
        notes.append(
            f"In {control.unsupported} of {report.probes.count} probes the target of another probe rises at the task "
            "particle by as much as their own."
        )
    if not report.lens.valid:
        notes.append(f"The lens is not valid for this model, so there is no task particle: {report.lens.reason}.")
    elif particle.unresolved:
        notes.append(
            f"{particle.unresolved} of {report.probes.count} probes are unresolved: their lens probability never reaches "
            f"{report.settings.min_probability}, or never rises by enough at once. The task particle leaves them out."
        )
    return notes


def _sensitivity_notes(sensitivity: Sensitivity, kinds: Sequence[str]) -> list[str]:
    notes = []
    if sensitivity.compute_problem is not None:
        notes.append(f"Layers were not all replayed in bfloat16: {sensitivity.compute_problem}.")
    if sensitivity.stopped is not None:
        notes.append(f"The measurement stopped {sensitivity.stopped}.")
    if not sensitivity.stderr_known:
        notes.append("Layer Sensitivity comes from a single perturbation: its standard error is not known, not zero.")
    by_kind: dict[str, list[float]] = {}
    for kind, value in zip(kinds, sensitivity.mean, strict=True):
        by_kind.setdefault(kind, []).append(value)
    if len(by_kind) > 1:
        notes.append(
            "Layers by kind, with their mean sensitivity: "
            + ", ".join(
                f"{len(values)} {kind} {with_error(float(np.mean(values)))}" for kind, values in by_kind.items()
            )
            + "."
        )
    if min(sensitivity.mean) > _SATURATED:
        notes.append(
            f"Every layer's perturbation changes the output beyond recognition (at least {min(sensitivity.mean):.2f} of at "
            "most 1 bit): it is too strong to tell layers apart. Lower its ratio or scale."
        )
    rivals = sensitivity.rivals
    if rivals:
        notes.append(
            f"Layer {sensitivity.vulnerable_layer} has the largest sensitivity, but layers {compact_ranges(rivals)} cannot "
            "be told from it: their difference is within two standard errors. More probes or repeats would separate them."
        )
    difference, error = sensitivity.shallow_minus_deep, sensitivity.shallow_minus_deep_stderr
    if sensitivity.stderr_known and error is not None and abs(difference) <= 2 * error:
        notes.append(
            "Shallow and deep layers do not differ in sensitivity beyond chance "
            f"({with_error(difference, error, sign=True)} bits)."
        )
    return notes
