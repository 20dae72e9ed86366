"""The panel of the lens: what the model would answer if it stopped after each layer."""

from __future__ import annotations

from textwrap import fill
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ..records import Lens, ReportData, TaskParticle
from .drawing import LABEL, LITERAL, MARKED, PANEL_TITLE, add_legend, count_of, drawable, later_style, shade_plan
from .palette import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION


_TASK_COLOURS = (ORANGE, GREEN, VERMILLION, SKY, GREY)
_TASK_STYLES = ("-", "--", "-.", ":")
_TASK_MARKERS = ("s", "^", "D")
_TASKS_NAMED = 10


def draw_lens(axes: Axes, report: ReportData) -> None:
    """Draws the lens probability of the targets, with both task particles and the control.

    Args:
        axes (`Axes`): Where.
        report ([`ReportData`]): A report that was measured.
    """
    lens, unresolved = report.first.lens, report.first.task_particle.unresolved
    said = f" ({unresolved} of {count_of(report.probes.count, 'probe')} unresolved)"
    aside = said if lens.valid and unresolved else ""
    axes.set_title(f"Lens probability of the target after each layer{aside}", fontsize=PANEL_TITLE, loc="left")
    axes.set_ylabel("Probability", fontsize=LABEL)
    shade_plan(axes, report)
    if lens.valid and lens.mean_probability:
        add_legend(axes, _draw_curves(axes, report))
    else:
        _explain_absence(axes, lens)


def _draw_curves(axes: Axes, report: ReportData) -> list[Artist]:
    lens = report.first.lens
    depth = range(-1, report.num_layers)
    mean = lens.mean_probability
    tasks = _draw_tasks(axes, lens)
    marker = "o" if report.num_layers <= MARKED else None
    curve = axes.plot(depth, mean, color=BLUE, linewidth=3.5, marker=marker, zorder=4, label="mean of all")
    handles: list[Artist] = [*curve]
    if lens.stderr_known:
        low = [max(0, value - error) for value, error in zip(mean, lens.stderr, strict=True)]
        high = [min(1, value + error) for value, error in zip(mean, lens.stderr, strict=True)]
        label = "±1 standard error"
        handles.append(axes.fill_between(depth, low, high, color=BLUE, alpha=0.3, linewidth=0, label=label))
    handles += [*_draw_control(axes, lens), *_draw_particle(axes, report.first.task_particle)]
    handles += _draw_second_rule(axes, report.first.task_particle)
    if report.is_repeated:
        after = report.latest.lens.mean_probability
        handles += axes.plot(range(-1, len(after) - 1), after, **later_style(report.latest))
        handles += _draw_later_particle(axes, report.latest.task_particle)
    axes.set_ylim(0, max(axes.get_ylim()[1], 0.01))
    return handles + tasks


def _draw_tasks(axes: Axes, lens: Lens) -> list[Line2D]:
    if len(lens.by_task) < 2:
        return []
    many = len(lens.by_task) > _TASKS_NAMED
    lines = []
    for number, (task, curve) in enumerate(lens.by_task.items()):
        look = {"color": GREY} if many else _task_look(number, len(curve))
        label = f"each of {len(lens.by_task)} tasks" if many else drawable(task)
        lines += axes.plot(range(-1, len(curve) - 1), curve, linewidth=1.5, label=label, zorder=3, **look)
    return lines[:1] if many else lines


def _task_look(number: int, points: int) -> dict[str, Any]:
    """Colour, dashes and markers together: lines that follow each other differ in all three."""
    return {
        "color": _TASK_COLOURS[number % len(_TASK_COLOURS)],
        "linestyle": _TASK_STYLES[number % len(_TASK_STYLES)],
        "marker": _TASK_MARKERS[number % len(_TASK_MARKERS)],
        "markersize": 7,
        "markevery": (number % 3, max(1, points // 8)),
    }


def _draw_control(axes: Axes, lens: Lens) -> list[Line2D]:
    if lens.control is None:
        return []
    curve, label = lens.control.mean_probability, "targets of other probes"
    return axes.plot(range(-1, len(curve) - 1), curve, color=BLACK, linewidth=2, linestyle=":", zorder=3, label=label)


def _draw_particle(axes: Axes, particle: TaskParticle) -> list[Artist]:
    if particle.layer is None:
        return [Line2D([], [], linestyle="none", label="no Task Particle")]
    label = f"Task Particle: layer {particle.layer:g}"
    handles: list[Artist] = [axes.axvline(particle.layer, color=PURPLE, linewidth=3, zorder=3, label=label)]
    if particle.interval is not None:
        low, high = particle.interval
        label = f"its 95 % interval: {low:g} to {high:g}"
        handles.append(axes.axvspan(low, high, color=PURPLE, alpha=0.3, linewidth=0, zorder=1, label=label))
    return handles


def _draw_second_rule(axes: Axes, particle: TaskParticle) -> list[Line2D]:
    if particle.max_ratio is None or particle.max_ratio.layer is None:
        return []
    layer = particle.max_ratio.layer
    return [
        axes.axvline(
            layer, color=PURPLE, linewidth=2, linestyle=":", zorder=3, label=f"max-ratio rule: layer {layer:g}"
        )
    ]


def _draw_later_particle(axes: Axes, particle: TaskParticle) -> list[Line2D]:
    if particle.layer is None:
        return []
    label = f"its Task Particle: layer {particle.layer:g}"
    return [axes.axvline(particle.layer, color=PURPLE, linewidth=2.5, linestyle="--", zorder=3, label=label)]


def _explain_absence(axes: Axes, lens: Lens) -> None:
    reason = fill(drawable(lens.reason or "not measured", 300), 80)
    text = f"The lens is not valid for this model:\n{reason}"
    box = {"facecolor": "white", "edgecolor": GREY, "boxstyle": "round,pad=0.8"}
    style = {"ha": "center", "va": "center", "fontsize": LABEL, "linespacing": 1.5, "bbox": box}
    axes.text(0.5, 0.5, text, transform=axes.transAxes, **style, **LITERAL)
    axes.set_yticks([])
