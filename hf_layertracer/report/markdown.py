"""The report as a section of a model card.

Every string of a report may come from someone else's file on the Hub, so none of them reaches the card unescaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from ..records.schema import (
    LayerPlan,
    ReportData,
    Savings,
    Sensitivity,
    Snapshot,
    TaskParticleSummary,
    TrainingOutcome,
)
from ..text import compact_ranges, one_line
from .recipe import asks_builtin_probes, recipe
from .templates import render


START = "<!-- layertracer:start -->"
END = "<!-- layertracer:end -->"

# A start without an end (someone cut the card) must not swallow the text up to a later section's end.
_SECTION = re.compile(rf"^{START}[ \t]*\r?\n(?:(?!^{START}).)*?^{END}", re.MULTILINE | re.DOTALL)
_ESCAPES = str.maketrans(
    {char: f"\\{char}" for char in "\\`*_[]{}#~!@"}
    | {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "|": "&#124;", "$": "&#36;"}
)
_PROSE_LIMIT = 1000
_NAME_LIMIT = 100
_TASKS_SHOWN = 20
_STRENGTHS = {"mask": "mask_ratio", "noise": "noise_scale"}


def report_section(report: ReportData) -> str:
    """Writes the section of a model card that tells what a report says.

    Args:
        report ([`ReportData`]): The report; its picture is expected beside the card as `layertracer_report.png`.

    Returns:
        `str`: Markdown without the markers of [`put_section`], ending in a newline.
    """
    findings = [*_task_particle(report), *_sensitivity(report.sensitivity)]
    if report.plan is not None:
        findings += _plan(report.plan, report.model.tied)
    if report.training is not None:
        findings += ["### Training", _training(report.training)]
    if report.history:
        findings += ["### Before and after training", _before_and_after(report)]
    if report.notes:
        findings += ["### Notes", _bullets(_prose(note) for note in report.notes)]
    return render(
        "section.md",
        introduction=_introduction(report),
        measurement=_measurement(report),
        findings=findings,
        recipe_needs=_recipe_needs(report),
        recipe=recipe(report),
    )


def put_section(card: str, section: str) -> str:
    """Puts the report's section into a model card, in place of an earlier one or at the end.

    Args:
        card (`str`): The card, with or without YAML front matter, possibly empty.
        section (`str`): What to put between the markers.

    Returns:
        `str`: The card with the section; everything outside the markers is unchanged.
    """
    block = f"{START}\n{section.rstrip()}\n{END}"
    earlier = _SECTION.search(card)
    if earlier is not None:
        return card[: earlier.start()] + block + card[earlier.end() :]
    if not card:
        return block + "\n"
    return card + ("\n" if card.endswith("\n") else "\n\n") + block + "\n"


def without_section(card: str) -> str:
    """A model card without the report's section.

    Args:
        card (`str`): The card.

    Returns:
        `str`: What others wrote.
    """
    return _SECTION.sub("", card)


def _prose(text: str) -> str:
    """A string of the report as literal text: no markup, link, HTML or formula comes of it."""
    line = one_line(text, _PROSE_LIMIT).translate(_ESCAPES)
    # Bare addresses turn into links, and these openings into lists and rules.
    line = re.sub(r":(?=//)|(?<=www)\.", r"\\\g<0>", line, flags=re.IGNORECASE)
    return re.sub(r"^([0-9]*)([-+=.)])", r"\1\\\2", line)


def _name(text: object) -> str:
    """An identifier of the report as a code span, or as escaped text where a code span would not hold it."""
    line = one_line(str(text), _NAME_LIMIT)
    if not line:
        return "(empty)"
    # A code span cannot escape the first two of these in a table, nor an end marker for `put_section`.
    return _prose(line) if re.search(r"[`|<>]", line) else f"`{line}`"


def _introduction(report: ReportData) -> str:
    model = report.model
    revision = f", revision {_name(model.revision)}" if model.revision else ""
    subject = f"{_name(model.id)} ({_name(model.architecture)}{revision})" if model.id else _name(model.architecture)
    return (
        f"What each of the {report.num_layers} layers of {subject} does, measured on {report.probes.count} probes. "
        "Layers are counted from 0; ± is one standard error."
    )


def _recipe_needs(report: ReportData) -> str:
    model = report.model
    subject = _name(model.id) if model.id else "the model"
    revision = f" at revision {_name(model.revision)}" if model.revision else ""
    needs = f"With `pip install {_package(report)}` and {subject}{revision} loaded as `model` and `tokenizer`"
    if report.training is not None and report.plan is not None:
        return f"{needs}, the training arguments as `args` and the data as `dataset`:"
    if asks_builtin_probes(report):
        return f"{needs} (the probes are those of the package):"
    return f"{needs}, and the {report.probes.count} probes with the SHA-256 above in `probes.jsonl`:"


def _package(report: ReportData) -> str:
    number = report.versions.get("hf_layertracer", "")
    return f"hf_layertracer=={number}" if re.fullmatch(r"[0-9][\w.+]{0,20}", number, re.ASCII) else "hf_layertracer"


def _measurement(report: ReportData) -> str:
    probes = report.probes
    return _bullets(
        [
            f"**Probes:** {probes.count} (SHA-256 {_name(probes.sha256)}). In {_percent(probes.accuracy)} of them the "
            f"target is the model's likeliest next token; its mean log-probability is {probes.mean_log_probability:.3f}.",
            f"**Disturbance:** {_disturbance(report)}",
            f"**Method:** {_method(report.sensitivity)}",
            f"**Task Particle:** {_settings(report.config, ['rise', 'min_probability']) or 'settings not recorded'}",
            f"**Made:** {_name(report.created)} with "
            + ", ".join(_name(f"{name} {number}") for name, number in report.versions.items()),
        ]
    )


def _disturbance(report: ReportData) -> str:
    config, sensitivity = report.config, report.sensitivity
    perturbation = str(config.get("perturbation"))
    settings = _settings(config, [_STRENGTHS.get(perturbation, ""), "diagnosis_seed"])
    drawn = f"{sensitivity.draws} draws ({sensitivity.repeats} per probe)"
    return ", ".join(filter(None, [_name(perturbation), settings, drawn]))


def _settings(settings: dict[str, Any], names: Iterable[str]) -> str:
    return ", ".join(f"{_name(name)} {_name(settings[name])}" for name in names if name in settings)


def _method(sensitivity: Sensitivity) -> str:
    reason = f" ({_prose(sensitivity.path_reason)})" if sensitivity.path_reason else ""
    path = f"path {_name(sensitivity.path)}{reason}"
    if not sensitivity.estimate:
        return f"exact: every disturbance of every layer was run, {path}"
    measured = sensitivity.calibration_draws
    calibration = "" if measured is None else f", calibrated with {measured} measured draws"
    return f"estimated from gradients{calibration}, {path}"


def _task_particle(report: ReportData) -> list[str]:
    heading = "### Task Particle: where the tasks begin to be executed"
    particle, lens = report.task_particle, report.lens
    if not lens.valid:
        reason = f": {_prose(lens.reason)}" if lens.reason else ""
        return [heading, f"The lens is not valid for this model, so there is no Task Particle{reason}."]
    blocks = [heading, f"{_particle_sentence(particle)} {_unresolved(particle.unresolved, report.probes.count)}"]
    return [*blocks, _task_table(report)] if len(particle.by_task) > 1 else blocks


def _particle_sentence(particle: TaskParticleSummary) -> str:
    if particle.layer is None:
        return "No probe has one."
    quartiles = f", quartiles {_span(particle.quartiles)}" if particle.quartiles else ""
    interval = f", 95 % interval of the median {_span(particle.interval)}" if particle.interval else ""
    return f"Median **layer {particle.layer:g}**{quartiles}{interval}."


def _unresolved(unresolved: int, count: int) -> str:
    return f"{unresolved} of {count} probes {'is' if unresolved == 1 else 'are'} unresolved."


def _task_table(report: ReportData) -> str:
    probes, tasks = report.probes, report.task_particle.by_task
    rows = [
        [
            _name(task),
            str(probes.tasks.get(task, "-")),
            _percent(probes.accuracy_by_task[task]) if task in probes.accuracy_by_task else "-",
            _layer(summary.layer),
            _span(summary.interval),
            str(summary.unresolved),
        ]
        for task, summary in list(tasks.items())[:_TASKS_SHOWN]
    ]
    table = _table(["Task", "Probes", "Accuracy", "Task Particle", "95 % interval", "Unresolved"], rows)
    more = len(tasks) - len(rows)
    return f"{table}\n\n{more} more tasks are in `layertracer_report.json`." if more else table


def _sensitivity(sensitivity: Sensitivity) -> list[str]:
    vulnerable = sensitivity.vulnerable_layer
    # The standard error of a single draw is written as 0, but it is not known.
    known = sensitivity.draws > 1
    value = _value(sensitivity.mean[vulnerable], sensitivity.stderr[vulnerable], known)
    rivals = [layer for layer in sensitivity.contenders if layer != vulnerable]
    stability = sensitivity.rank_stability
    return [
        "### Layer Sensitivity: how far disturbing a layer moves the output",
        "Jensen-Shannon divergence in bits, from 0 to 1"
        + (", estimated from gradients." if sensitivity.estimate else "."),
        _bullets(
            [
                f"**Vulnerable layer:** {vulnerable}, with {value} bits",
                f"**Not to be told from it** (within two standard errors): {compact_ranges(rivals)}",
                "**Shallow half minus deep half:** "
                + _value(sensitivity.shallow_minus_deep, sensitivity.shallow_minus_deep_stderr, known)
                + " bits",
                "**Rank stability** (mean rank correlation between halves of the probes): "
                + ("not known" if stability is None else f"{stability:.2f}"),
            ]
        ),
    ]


def _plan(plan: LayerPlan, tied: bool) -> list[str]:
    strategy = ", ".join(filter(None, [_name(plan.strategy), _settings(plan.options, plan.options)]))
    outside = {
        "embeddings (tied to the head)" if tied else "embeddings": plan.train_embeddings,
        "final norm": plan.train_norm,
        "head (tied to the embeddings)" if tied else "head": plan.train_head,
    }
    items = [
        f"**Strategy:** {strategy}",
        f"**Trained layers:** {compact_ranges(plan.trained_layers)}",
        f"**Frozen layers:** {compact_ranges(plan.frozen_layers)}",
        "**Outside the layers:** "
        + ", ".join(f"{part} {'trained' if trained else 'frozen'}" for part, trained in outside.items()),
    ]
    if plan.patterns:
        patterns = ", ".join(_name(pattern) for pattern in plan.patterns)
        items.append(f"**Inside the layers only parameters that match:** {patterns}")
    items.append(f"**Reason:** {_prose(plan.reason)}")
    return ["### Layer plan", _bullets(items), _savings(plan.savings)]


def _savings(savings: Savings) -> str:
    quantities = [
        ("Trainable parameters", "M", 1e6, savings.trainable_parameters, savings.trainable_parameters_full),
        ("Optimizer state (Adam, float32)", "MiB", 2**20, savings.optimizer_bytes, savings.optimizer_bytes_full),
        ("Gradients", "MiB", 2**20, savings.gradient_bytes, savings.gradient_bytes_full),
        ("Matrix products per token", "GFLOPs", 1e9, savings.flops_per_token, savings.flops_per_token_full),
    ]
    rows = [
        [name, f"{_number(plan / scale)} {unit}", f"{_number(full / scale)} {unit}", _saved(plan, full)]
        for name, unit, scale, plan, full in quantities
    ]
    total = f"The model has {_number(savings.total_parameters / 1e6)} M parameters in all."
    return f"{_table(['', 'This plan', 'Full training', 'Saved'], rows)}\n\n{total}"


def _training(training: TrainingOutcome) -> str:
    rows = [
        ["Optimizer steps", f"{training.steps:,}"],
        ["Wall time", f"{_number(training.seconds)} s"],
        ["Tokens, padding included", None if training.tokens is None else f"{training.tokens:,}"],
        ["Tokens per second", _optional(training.tokens_per_second)],
        [f"Peak memory ({_name(training.peak_memory_of)})", f"{_number(training.peak_memory_bytes / 2**20)} MiB"],
        ["Trained parameters", f"{_number(training.trainable_parameters / 1e6)} M"],
        ["Mean training loss", _optional(training.train_loss)],
        ["Evaluation loss before", _optional(training.eval_loss_before)],
        ["Evaluation loss after", _optional(training.eval_loss_after)],
    ]
    return _table(["", "Measured"], [row for row in rows if row[1] is not None])


def _before_and_after(report: ReportData) -> str:
    latest = report.history[-1]
    before = report.snapshot()
    columns = [_snapshot_cells(snapshot, report.sensitivity.draws > 1) for snapshot in (before, latest)]
    rows = [[name, columns[0][name], columns[1][name]] for name in columns[0]]
    return _table(["Same probes, same settings", "Before", f"After step {latest.step}"], rows)


def _snapshot_cells(snapshot: Snapshot, known: bool) -> dict[str, str]:
    values = snapshot.sensitivity
    layer = max(range(len(values)), key=values.__getitem__)
    return {
        "Accuracy on the probes": _percent(snapshot.accuracy),
        "Mean log-probability of the targets": f"{snapshot.mean_log_probability:.3f}",
        "Task Particle": _layer(snapshot.task_particle),
        "95 % interval of the Task Particle": _span(snapshot.task_particle_interval),
        "Vulnerable layer": str(layer),
        "Its Layer Sensitivity in bits": _value(values[layer], snapshot.sensitivity_stderr[layer], known),
    }


def _bullets(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _optional(value: float | None) -> str | None:
    return None if value is None else _number(value)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _saved(part: int, full: int) -> str:
    return _percent(1 - part / full) if full else "-"


def _value(mean: float, stderr: float, known: bool) -> str:
    return f"{mean:.3f} ± {stderr:.3f}" if known else f"{mean:.3f} (standard error not known)"


def _layer(layer: float | None) -> str:
    return "-" if layer is None else f"{layer:g}"


def _span(limits: tuple[float, float] | None) -> str:
    return "-" if limits is None else f"{limits[0]:g} to {limits[1]:g}"
