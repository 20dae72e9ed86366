"""Rows of a report for tables on a page and in CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from ..records import ReportData
from .escaping import plain
from .units import layer, number


ORDERS = ("as asked", "least probable first", "most probable first", "earliest Task Particle first")
PAGE = 25
# With which a spreadsheet begins a formula, in half and full width.
_FORMULA = tuple("=+-@＝＋－＠")


def layer_table(report: ReportData) -> tuple[list[str], list[list[str]]]:
    """Every per-layer value of a report.

    Args:
        report ([`ReportData`]): The report.

    Returns:
        `tuple[list[str], list[list[str]]]`: The header, and a row a layer.
    """
    scores, lens, plan = report.first.sensitivity, report.first.lens, report.plan
    header = ["layer", "kind", "parameters", "sensitivity (bits)", "standard error", "block influence"]
    header += ["lens probability", "its standard error"] if lens.mean_probability else []
    header += ["plan"] if plan else []
    rows = []
    for index, facts in enumerate(report.model.layers):
        row = [str(index), facts.kind, str(facts.size)]
        row += [number(scores.mean[index], 4), number(scores.stderr[index] if scores.stderr_known else None, 4)]
        row += [f"{report.first.block_influence[index]:.4g}"]
        if lens.mean_probability:
            error = lens.stderr[index + 1] if lens.stderr_known else None
            row += [number(lens.mean_probability[index + 1], 4), number(error, 4)]
        row += [("trained" if index in plan.trained_layers else "frozen")] if plan else []
        rows.append(row)
    return header, rows


def layer_csv(report: ReportData) -> str:
    """A report's per-layer values, with those of each task, as a CSV file.

    A cell that a spreadsheet would take for a formula begins with an apostrophe.

    Args:
        report ([`ReportData`]): The report.

    Returns:
        `str`: The file's text, with full precision.
    """
    scores, lens, plan = report.first.sensitivity, report.first.lens, report.plan
    unknown = [""] * report.num_layers
    columns: dict[str, Sequence[object]] = {
        "layer": range(report.num_layers),
        "kind": [facts.kind for facts in report.model.layers],
        "parameters": [facts.size for facts in report.model.layers],
        "sensitivity": scores.mean,
        "sensitivity_stderr": scores.stderr if scores.stderr_known else unknown,
        "block_influence": report.first.block_influence,
    }
    if lens.mean_probability:
        columns["lens_probability"] = lens.mean_probability[1:]
        columns["lens_stderr"] = lens.stderr[1:] if lens.stderr_known else unknown
    others = {
        name: found.mean for name, found in report.first.sensitivities.items() if name != report.first.perturbation
    }
    columns |= {f"sensitivity ({name})": mean for name, mean in others.items()}
    if report.first.context is not None:
        columns["context_sensitivity"] = report.first.context.delta
    if plan is not None:
        columns["plan"] = ["trained" if i in plan.trained_layers else "frozen" for i in range(report.num_layers)]
    columns |= {f"sensitivity: {task}": values for task, values in scores.by_task.items()}
    columns |= {f"lens_probability: {task}": values[1:] for task, values in lens.by_task.items()}
    for diagnosis in report.diagnoses[1:]:
        columns[f"sensitivity after step {diagnosis.step}"] = diagnosis.sensitivity.mean
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow([_cell(name) for name in columns])
    writer.writerows([[_cell(value) for value in row] for row in zip(*columns.values(), strict=True)])
    return file.getvalue()


def choose_probes(report: ReportData, task: str | None = None, text: str = "", order: str = ORDERS[0]) -> list[int]:
    """The probes to show, in the order to show them in.

    Args:
        report ([`ReportData`]): The report.
        task (`str`, *optional*): Only probes of this task.
        text (`str`, *optional*): Only probes with this text in prompt or target.
        order (`str`, *optional*): One of `ORDERS`.

    Returns:
        `list[int]`: Their numbers.
    """
    wanted = text.strip().casefold()
    chosen = [
        index
        for index, probe in enumerate(report.probes.items)
        if (not task or probe.task == task)
        and (not wanted or wanted in f"{probe.prompt or ''}{probe.target or ''}".casefold())
    ]
    probability, particles = report.first.scores.probability, report.first.task_particle.per_probe
    if order in ORDERS[1:3]:
        chosen.sort(key=probability.__getitem__, reverse=order == ORDERS[2])
    elif order == ORDERS[3]:
        chosen.sort(key=lambda index: (particles[index] is None, particles[index] or 0))
    return chosen


def page_of(chosen: Sequence[int], page: int) -> list[int]:
    """The probes of a page, counted from 1; the last one where there are fewer pages."""
    return list(chosen[(min(max(1, page), pages(chosen)) - 1) * PAGE :][:PAGE])


def pages(chosen: Sequence[int]) -> int:
    return max(1, -(-len(chosen) // PAGE))


def probe_table(report: ReportData, probes: Sequence[int]) -> tuple[list[str], list[list[str]]]:
    """Some probes, with the model's answer and what the lens reads at five depths.

    Args:
        report ([`ReportData`]): The report.
        probes (`Sequence[int]`): Their numbers.

    Returns:
        `tuple[list[str], list[list[str]]]`: The header, and a row a probe.
    """
    depths = sorted({round(report.num_layers * share) for share in (0.25, 0.5, 0.75, 1)})
    scores, tokens = report.first.scores, report.first.lens.top_tokens
    header = ["probe", "task", "prompt", "right answer", "its probability", "Task Particle"]
    header += (
        [f"reads after layer {depth - 1}" if depth else "reads the embedding" for depth in depths] if tokens else []
    )
    rows = []
    for index in probes:
        probe, particle = report.probes.items[index], report.first.task_particle.per_probe[index]
        answer = f"{scores.probability[index]:.4f}{' (likeliest)' if scores.correct[index] else ''}"
        prompt = "–" if probe.prompt is None else probe.prompt[-70:]
        row = [str(index), probe.task, prompt, "–" if probe.target is None else probe.target, answer]
        row += ["unresolved" if particle is None else str(particle)]
        row += [visible(tokens[index][depth]) for depth in depths] if tokens else []
        rows.append(row)
    return header, rows


def reading_table(report: ReportData, probe: int) -> tuple[list[str], list[list[str]]]:
    """What the lens reads of one probe at every layer.

    Args:
        report ([`ReportData`]): The report, with a valid lens.
        probe (`int`): The probe's number.

    Returns:
        `tuple[list[str], list[list[str]]]`: The header, and a row for the embedding and each layer.
    """
    lens = report.first.lens
    header = ["after", "lens probability"]
    if lens.likely:
        header += ["likeliest token", "second", "third"]
    elif lens.top_tokens:
        header.append("likeliest token")
    rows = []
    for column, value in enumerate(lens.per_probe[probe]):
        row = [f"layer {column - 1}" if column else "embedding", number(value, 4)]
        if lens.likely:
            said = [f"{visible(token)} {probability:.2f}" for token, probability in lens.likely[probe][column][:3]]
            row += [*said, "", "", ""][:3]
        elif lens.top_tokens:
            row.append(visible(lens.top_tokens[probe][column]))
        rows.append(row)
    return header, rows


def visible(token: str) -> str:
    """A token with its white space shown."""
    return plain(token.replace("\n", "⏎").replace("\t", "⇥").replace(" ", "␣"), 24) or "(not printable)"


def particle_sentence(report: ReportData) -> str:
    """The Task Particle in words."""
    particle = report.first.task_particle
    if particle.layer is None:
        return "unresolved" if report.first.lens.valid else "the lens is not valid for this model"
    interval = (
        f", 95 % interval {layer(particle.interval[0])} to {layer(particle.interval[1])}" if particle.interval else ""
    )
    resolved = report.probes.count - (particle.unresolved or 0)
    return f"layer {layer(particle.layer)}{interval}; {resolved} of {report.probes.count} probes resolved"


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = plain(value, 200)
    return f"'{text}" if text[:1] in _FORMULA else text
