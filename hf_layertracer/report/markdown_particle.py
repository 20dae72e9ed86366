"""What a model card says of the Task Particle and of the lens that it comes from."""

from __future__ import annotations

from ..records import ReportData, TaskParticleSummary
from ..text import compact_ranges, with_error
from .markdown_text import bullets, layer, name, percent, prose, span, table, value


_TASKS_SHOWN = 20


def task_particle_blocks(report: ReportData) -> list[str]:
    """Where the tasks begin to be executed, by both rules, with controls and by task.

    Args:
        report ([`ReportData`]): A report that was measured.

    Returns:
        `list[str]`: Blocks of Markdown, the heading first.
    """
    heading = "### Task Particle: where the tasks begin to be executed"
    particle, lens = report.first.task_particle, report.first.lens
    if not lens.valid:
        reason = f": {prose(lens.reason)}" if lens.reason else ""
        return [heading, f"The lens is not valid for this model, so there is no Task Particle{reason}."]
    blocks = [heading, f"{_particle_sentence(particle)} {_unresolved(particle.unresolved, report.probes.count)}"]
    if particle.max_ratio is not None:
        blocks.append(
            "By the rule of arXiv 2605.11416 (where the probability of the model's own answer changes most in proportion): "
            f"{_particle_sentence(particle.max_ratio)}"
        )
    blocks += _controls(report)
    context = report.first.context
    if context is not None:
        layer = context.delta.index(max(context.delta))
        added = value(context.delta[layer], context.delta_stderr[layer], context.stderr_known)
        blocks.append(
            f"The context comes in most at **layer {layer}**: there the divergence between the lens with and without a part "
            f"of the prompt grows by {added} bits, and reaches "
            f"{with_error(context.mean[-1])} bits at the output."
        )
    return [*blocks, _task_table(report)] if len(particle.by_task) > 1 else blocks


def _controls(report: ReportData) -> list[str]:
    """What the same prompts show with other targets, and without the final norm."""
    lens, particle, said = report.first.lens, report.first.task_particle, []
    if lens.control is not None:
        control, count = lens.control, report.probes.count
        own = "-" if particle.unresolved is None else percent((count - particle.unresolved) / count)
        at = (
            f"at layer{'s' * (len(control.layers) > 1)} {compact_ranges(control.layers)}"
            if control.layers
            else "at no layer that counts"
        )
        said.append(
            f"**Control with the targets of other probes** ({control.targets} for each): {percent(control.resolved)} of "
            f"their curves have a Task Particle, against {own} of the probes' own, and their mean probability ends at "
            f"{control.mean_probability[-1]:.3g} instead of {lens.mean_probability[-1]:.3g}. The target rises no more than "
            f"the control {at}, and in {control.unsupported} of {count} probes at the Task Particle."
        )
    if lens.without_norm is not None:
        without = lens.without_norm
        found = "no probe has one" if without.layer is None else f"it would be layer {without.layer:g}"
        said.append(
            f"**Control without the final norm:** {found}, with {without.unresolved} of {report.probes.count} probes "
            "unresolved."
        )
    return [bullets(said)] if said else []


def _particle_sentence(particle: TaskParticleSummary) -> str:
    if particle.layer is None:
        return "No probe has one."
    quartiles = f", quartiles {span(particle.quartiles)}" if particle.quartiles else ""
    interval = f", 95 % interval of the median {span(particle.interval)}" if particle.interval else ""
    return f"Median **layer {particle.layer:g}**{quartiles}{interval}."


def _unresolved(unresolved: int | None, count: int) -> str:
    return f"{unresolved} of {count} probes {'is' if unresolved == 1 else 'are'} unresolved."


def _task_table(report: ReportData) -> str:
    tasks, accuracy = report.first.task_particle.by_task, report.first.scores.accuracy_by_task
    rows = [
        [
            name(task),
            str(report.probes.tasks.get(task, "-")),
            percent(accuracy[task]) if task in accuracy else "-",
            layer(summary.layer),
            span(summary.interval),
            str(summary.unresolved),
        ]
        for task, summary in list(tasks.items())[:_TASKS_SHOWN]
    ]
    shown = table(["Task", "Probes", "Accuracy", "Task Particle", "95 % interval", "Unresolved"], rows)
    more = len(tasks) - len(rows)
    return f"{shown}\n\n{more} more tasks are in `layertracer_report.json`." if more else shown
