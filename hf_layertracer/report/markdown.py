"""The report as a section of a model card."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from ..config import DiagnosisConfig
from ..planning.outside import planned_outside
from ..records import (
    Diagnosis,
    LayerPlan,
    ReportData,
    Scores,
    Sensitivity,
)
from ..text import compact_ranges
from .markdown_particle import task_particle_blocks
from .markdown_tables import history_table, savings_table, training_table
from .markdown_text import bullets, layer, name, percent, prose, span, table, value
from .recipe import asked_builtin_probes, recipe
from .templates import render


_STRENGTHS = {"mask": "mask_ratio", "noise": "noise_scale"}


def report_section(report: ReportData) -> str:
    """Writes the section of a model card that tells what a report says.

    Args:
        report ([`ReportData`]): The report; its picture is expected beside the card as `layertracer_report.png`.

    Returns:
        `str`: Markdown without the markers of [`~report.card_section.put_section`], ending in a newline.
    """
    findings = [*task_particle_blocks(report), *_sensitivity(report)] if report.is_measured else []
    if report.plan is not None:
        findings += _plan(report, report.plan)
    if report.training is not None:
        findings += ["### Training", training_table(report.training)]
    if report.is_repeated:
        findings += ["### Before and after training", _before_and_after(report)]
    notes = [*report.notes, *(report.latest.notes if report.is_repeated else [])]
    if notes:
        findings += ["### Notes", bullets(prose(note) for note in notes)]
    return render(
        "section.md",
        introduction=_introduction(report),
        picture=(
            "Layer Sensitivity and lens probability of each layer"
            if report.is_measured
            else "Parameters of each layer, and which layers train"
        ),
        measurement=_measurement(report),
        findings=findings,
        recipe_needs=_recipe_needs(report),
        recipe=recipe(report),
    )


def _introduction(report: ReportData) -> str:
    model = report.model
    revision = f", revision {name(model.revision)}" if model.revision else ""
    subject = f"{name(model.id)} ({name(model.architecture)}{revision})" if model.id else name(model.architecture)
    if not report.is_measured:
        return (
            f"Which of the {report.num_layers} layers of {subject} were trained. **Nothing was measured**: the notes say "
            "why. Layers are counted from 0."
        )
    return (
        f"What each of the {report.num_layers} layers of {subject} does, measured on {report.probes.count} probes. "
        "Layers are counted from 0; ± is one standard error."
    )


def _recipe_needs(report: ReportData) -> str:
    model = report.model
    subject = name(model.id) if model.id else "the model"
    revision = f" at revision {name(model.revision)}" if model.revision else ""
    needs = f"With `pip install {_package(report)}` and {subject}{revision} loaded as `model` and `tokenizer`"
    if report.training is not None and report.plan is not None:
        return f"{needs}, the training arguments as `args` and the data as `dataset`:"
    if asked_builtin_probes(report):
        return f"{needs} (the probes are those of the package):"
    return f"{needs}, and the {report.probes.count} probes with the SHA-256 above in `probes.jsonl`:"


def _package(report: ReportData) -> str:
    version = report.versions.get("hf_layertracer", "")
    return f"hf_layertracer=={version}" if re.fullmatch(r"[0-9][\w.+]{0,20}", version, re.ASCII) else "hf_layertracer"


def _measurement(report: ReportData) -> str:
    versions = ", ".join(name(f"{package} {version}") for package, version in report.versions.items())
    made = f"**Made:** {name(report.created)} with {versions}"
    if not report.is_measured:
        return bullets([made])
    probes, scores = report.probes, report.first.scores
    return bullets(
        [
            f"**Probes:** {probes.count} (SHA-256 {name(probes.sha256)}). In {percent(scores.accuracy)} of them the "
            f"target is the model's likeliest next token; its mean log-probability is {scores.mean_log_probability:.3f}."
            f"{_choices(scores)}",
            *(f"**Perturbation:** {said}" for said in _perturbations(report.first, report.settings)),
            f"**Method:** {_method(report.first.sensitivity)}",
            f"**Task Particle:** {_settings(asdict(report.settings), ['rise', 'min_probability'])}",
            made,
        ]
    )


def _choices(scores: Scores) -> str:
    """Of multiple-choice questions: how often the right choice is likelier than the others."""
    if scores.choice_accuracy is None:
        return ""
    chance = f" (chance: {percent(scores.choice_chance)})" if scores.choice_chance is not None else ""
    return f" Of the choices alone, the target is the likeliest in {percent(scores.choice_accuracy)}{chance}."


def _perturbations(diagnosis: Diagnosis, settings: DiagnosisConfig) -> list[str]:
    found = []
    for perturbation, sensitivity in diagnosis.sensitivities.items():
        said = _settings(asdict(settings), [_STRENGTHS.get(perturbation, ""), "diagnosis_seed"])
        found.append(f"{name(perturbation)}, {said}, {sensitivity.draws} draws ({sensitivity.repeats} per probe)")
    return found


def _settings(settings: dict[str, Any], names: Iterable[str]) -> str:
    return ", ".join(f"{name(setting)} {name(settings[setting])}" for setting in names if setting in settings)


def _method(sensitivity: Sensitivity) -> str:
    reason = f" ({prose(sensitivity.path_reason)})" if sensitivity.path_reason else ""
    path = f"path {name(sensitivity.path)}{reason}"
    if sensitivity.compute_dtype and sensitivity.compute_error is not None:
        moved = f"a sample of draws moved by {sensitivity.compute_error:.2g} bits on average"
        path += f" in {name(sensitivity.compute_dtype)} ({moved})"
    corrected = sensitivity.massive_dimensions
    if not corrected:
        return path
    return f"{path}; means corrected for how often the masks hit each layer's {corrected} most massive dimensions"


def _sensitivity(report: ReportData) -> list[str]:
    sensitivity = report.first.sensitivity
    known, stability = sensitivity.stderr_known, sensitivity.rank_stability
    vulnerable = _vulnerable(report.first)
    if report.is_repeated:
        vulnerable = f"{vulnerable} before training; {_vulnerable(report.latest)} after step {report.latest.step}"
    return [
        "### Layer Sensitivity: how far perturbing a layer moves the output",
        "Jensen-Shannon divergence in bits, from 0 to 1.",
        bullets(
            [
                f"**Vulnerable layer:** {vulnerable}",
                "**Not to be told from it** (within two standard errors): "
                + (compact_ranges(sensitivity.rivals) if known else "not known"),
                "**Shallow half minus deep half:** "
                + value(sensitivity.shallow_minus_deep, sensitivity.shallow_minus_deep_stderr, known)
                + " bits",
                "**Rank stability** (mean rank correlation between halves of the probes): "
                + ("not known" if stability is None else f"{stability:.2f}"),
                *_further(report.first),
            ]
        ),
    ]


def _further(diagnosis: Diagnosis) -> list[str]:
    """The perturbations that were measured beside the first."""
    said = []
    for other, found in diagnosis.sensitivities.items():
        if other != diagnosis.perturbation:
            slope = value(found.shallow_minus_deep, found.shallow_minus_deep_stderr, found.stderr_known)
            said.append(
                f"**Under {name(other)}:** layer {found.vulnerable_layer} moves the output most, with {_highest(found)} "
                f"bits; shallow half minus deep half {slope} bits"
            )
    return said


def _vulnerable(diagnosis: Diagnosis) -> str:
    return f"{diagnosis.sensitivity.vulnerable_layer}, with {_highest(diagnosis.sensitivity)} bits"


def _plan(report: ReportData, plan: LayerPlan) -> list[str]:
    tied = report.model.tied
    strategy = ", ".join(filter(None, [name(plan.strategy), _settings(plan.options, plan.options)]))
    outside = planned_outside(plan, tied)
    named = {
        "embeddings (tied to the head)" if tied else "embeddings": outside["embeddings"],
        "final norm": outside["norm"],
        "head (tied to the embeddings)" if tied else "head": outside["head"],
    }
    items = [
        f"**Strategy:** {strategy}",
        f"**Trained layers:** {compact_ranges(plan.trained_layers)}",
        f"**Frozen layers:** {compact_ranges(plan.frozen_layers)}",
        "**Outside the layers:** " + ", ".join(f"{part} {does}" for part, does in named.items()),
    ]
    if plan.patterns:
        patterns = ", ".join(name(pattern) for pattern in plan.patterns)
        items.append(f"**Inside the layers, and where names decide, only parameters that match:** {patterns}")
    if len(report.plans) > 1:
        earlier = len(report.plans) - 1
        items.append(
            f"**In force:** from step {report.plans[-1].step} on, after {earlier} other plan{'s' * (earlier > 1)}"
        )
    items.append(f"**Reason:** {prose(plan.reason)}")
    history = ["### What trained when", history_table(report.plans)] if len(report.plans) > 1 else []
    return ["### Layer plan", bullets(items), savings_table(plan.savings, report.model.counted), *history]


def _before_and_after(report: ReportData) -> str:
    columns = [_cells(diagnosis) for diagnosis in (report.first, report.latest)]
    rows = [[label, *(cells.get(label, "-") for cells in columns)] for label in columns[0]]
    return table(["Same probes, same settings", "Before", f"After step {report.latest.step}"], rows)


def _cells(diagnosis: Diagnosis) -> dict[str, str]:
    figures: dict[str, Any] = diagnosis.headline()
    return {
        "Accuracy on the probes": percent(figures["accuracy"]),
        **_choice_cells(diagnosis.scores),
        "Mean log-probability of the targets": f"{figures['mean_log_probability']:.3f}",
        "Task Particle": layer(figures["task_particle"]),
        "95 % interval of the Task Particle": span(diagnosis.task_particle.interval),
        "Vulnerable layer": str(figures["vulnerable_layer"]),
        "Its Layer Sensitivity in bits": _highest(diagnosis.sensitivity),
    }


def _choice_cells(scores: Scores) -> dict[str, str]:
    return {} if scores.choice_accuracy is None else {"Accuracy over the choices": percent(scores.choice_accuracy)}


def _highest(sensitivity: Sensitivity) -> str:
    stderr = sensitivity.stderr[sensitivity.vulnerable_layer]
    return value(sensitivity.highest, stderr, sensitivity.stderr_known)
