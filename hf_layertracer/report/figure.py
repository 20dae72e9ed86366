"""The picture of a report: Layer Sensitivity above, lens probability below, one column per layer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from textwrap import fill
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from ..records import Diagnosis, Lens, ReportData, TaskParticle
from ..text import one_line
from .palette import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION, kind_colours


_TASK_COLOURS = (ORANGE, GREEN, VERMILLION, SKY, GREY)
_TASK_STYLES = ("-", "--", "-.", ":")
_TASK_MARKERS = ("s", "^", "D")
_TASKS_NAMED = 10

_SIZE_INCHES = (16, 10)
_DPI = 100
_TITLE, _PANEL_TITLE, _LABEL = 21, 18, 15
_NAME_LIMIT, _TITLE_LIMIT = 24, 64
# Most digits along the layer axis; most layers that leave room for "emb" beside the 0, and for markers on a curve.
_DIGITS, _ROOMY, _MARKED = 70, 20, 40
# Bits: a model that no perturbation moves still gets an axis.
_SMALLEST_SCALE = 0.001
# Text of a report is someone else's: no `$` in it may start a formula, whatever the user's matplotlibrc says.
_LITERAL = {"parse_math": False, "usetex": False}


def draw_report(report: ReportData) -> Figure:
    """Draws a report for a reader who has a few seconds.

    Args:
        report ([`ReportData`]): The report, of a model with any number of layers.

    Returns:
        `matplotlib.figure.Figure`: 1600 x 1000 pixels, with its own Agg canvas; pyplot does not know of it.
    """
    figure = Figure(figsize=_SIZE_INCHES, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(h_pad=0.12, w_pad=0.12)
    figure.suptitle(_headline(report), fontsize=_TITLE, fontweight="bold", linespacing=1.4, **_LITERAL)
    if not report.is_measured:
        _draw_sizes(figure.subplots(), report)
        return figure
    above, below = figure.subplots(2, 1, sharex=True)
    _draw_sensitivity(above, report)
    _draw_lens(below, report)
    for axes in (above, below):
        _tidy(axes)
    _number_layers(below, report.num_layers)
    above.tick_params(labelbottom=True)
    above.tick_params(which="minor", bottom=False)
    return figure


def _draw_sizes(axes: Axes, report: ReportData) -> None:
    """Of a model that was not measured: how large each layer is, and which train."""
    sizes = [layer.size for layer in report.model.layers]
    bars = axes.bar(range(report.num_layers), sizes, color=BLUE, label="parameters", zorder=2)
    axes.set_title("Parameters of each layer (nothing was measured)", fontsize=_PANEL_TITLE, loc="left")
    axes.set_xlabel("Layer, counted from 0", fontsize=_LABEL)
    axes.set_ylim(0, max(*sizes, 1) * 1.18)
    _tidy(axes)
    _number_layers(axes, report.num_layers)
    _add_legend(axes, [bars, *_shade_plan(axes, report)])


def _tidy(axes: Axes) -> None:
    axes.tick_params(which="both", labelsize=_LABEL, length=4, pad=4)
    axes.spines[["top", "right"]].set_visible(False)


def _headline(report: ReportData) -> str:
    model = _name(report.model.name, _TITLE_LIMIT)
    plan = f"plan: {_name(report.plan.strategy)}" if report.plan else "no plan"
    return f"{model}\n{_count(report.num_layers, 'layer')}  ·  {_count(report.probes.count, 'probe')}  ·  {plan}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _draw_sensitivity(axes: Axes, report: ReportData) -> None:
    sensitivity = report.first.sensitivity
    layers = range(report.num_layers)
    colours = kind_colours([layer.kind for layer in report.model.layers])
    bars = axes.bar(
        layers,
        sensitivity.mean,
        yerr=sensitivity.stderr,
        color=[colours[layer.kind] for layer in report.model.layers],
        error_kw={"ecolor": BLACK, "elinewidth": 1.5, "capsize": min(5, 160 / report.num_layers)},
        label="Layer Sensitivity",
        zorder=2,
    )
    kinds = [Patch(color=colour, label=_name(kind)) for kind, colour in colours.items()]
    tops = [mean + error for mean, error in zip(sensitivity.mean, sensitivity.stderr, strict=True)]
    handles: list[Artist] = kinds if len(kinds) > 1 else [bars]
    handles += _mark_vulnerable(axes, report, tops)
    if report.is_repeated:
        after = report.latest.sensitivity.mean
        tops += after
        handles += axes.plot(range(len(after)), after, **_after(report.latest))
    axes.set_ylim(0, max(*tops, _SMALLEST_SCALE) * 1.18)
    axes.set_ylabel("Divergence (bits)", fontsize=_LABEL)
    errors = "±1 standard error" if sensitivity.stderr_known else "one perturbation: standard error not known"
    axes.set_title(f"Layer Sensitivity ({errors})", fontsize=_PANEL_TITLE, loc="left")
    _add_legend(axes, handles + _shade_plan(axes, report))


def _mark_vulnerable(axes: Axes, report: ReportData, tops: Sequence[float]) -> list[Line2D]:
    vulnerable, rivals = report.first.sensitivity.vulnerable_layer, report.first.sensitivity.rivals
    gap = max(*tops, _SMALLEST_SCALE) * 0.06

    def mark(layers: list[int], fill_colour: str, label: str) -> list[Line2D]:
        heights = [tops[layer] + gap for layer in layers]
        style = {"marker": "v", "markersize": 11, "color": BLACK, "markerfacecolor": fill_colour, "linestyle": "none"}
        return axes.plot(layers, heights, label=label, **style)

    marks = mark([vulnerable], BLACK, f"vulnerable layer: {vulnerable}")
    return marks + mark(rivals, "white", "within 2 errors of it") if rivals else marks


def _draw_lens(axes: Axes, report: ReportData) -> None:
    lens, unresolved = report.first.lens, report.first.task_particle.unresolved
    said = f" ({unresolved} of {_count(report.probes.count, 'probe')} unresolved)"
    aside = said if lens.valid and unresolved else ""
    axes.set_title(f"Lens probability of the target after each layer{aside}", fontsize=_PANEL_TITLE, loc="left")
    axes.set_ylabel("Probability", fontsize=_LABEL)
    axes.set_xlabel("Layer, counted from 0 (emb: the embedding's output)", fontsize=_LABEL)
    _shade_plan(axes, report)
    if lens.valid and lens.mean_probability:
        _add_legend(axes, _draw_curves(axes, report))
    else:
        _explain_absence(axes, lens)


def _draw_curves(axes: Axes, report: ReportData) -> list[Artist]:
    lens = report.first.lens
    depth = range(-1, report.num_layers)
    mean = lens.mean_probability
    low = [max(0, value - error) for value, error in zip(mean, lens.stderr, strict=True)]
    high = [min(1, value + error) for value, error in zip(mean, lens.stderr, strict=True)]
    tasks = _draw_tasks(axes, lens)
    marker = "o" if report.num_layers <= _MARKED else None
    curve = axes.plot(depth, mean, color=BLUE, linewidth=3.5, marker=marker, zorder=4, label="mean of all")
    band = axes.fill_between(depth, low, high, color=BLUE, alpha=0.3, linewidth=0, label="±1 standard error")
    handles = [*curve, band, *_draw_particle(axes, report.first.task_particle)]
    if report.is_repeated:
        after = report.latest.lens.mean_probability
        handles += axes.plot(range(-1, len(after) - 1), after, **_after(report.latest))
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
        label = f"each of {len(lens.by_task)} tasks" if many else _name(task)
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


def _draw_later_particle(axes: Axes, particle: TaskParticle) -> list[Line2D]:
    if particle.layer is None:
        return []
    label = f"its Task Particle: layer {particle.layer:g}"
    return [axes.axvline(particle.layer, color=PURPLE, linewidth=2.5, linestyle="--", zorder=3, label=label)]


def _explain_absence(axes: Axes, lens: Lens) -> None:
    reason = fill(_name(lens.reason or "not measured", 300), 80)
    text = f"The lens is not valid for this model:\n{reason}"
    box = {"facecolor": "white", "edgecolor": GREY, "boxstyle": "round,pad=0.8"}
    style = {"ha": "center", "va": "center", "fontsize": _LABEL, "linespacing": 1.5, "bbox": box}
    axes.text(0.5, 0.5, text, transform=axes.transAxes, **style, **_LITERAL)
    axes.set_yticks([])


def _shade_plan(axes: Axes, report: ReportData) -> list[Patch]:
    """Shades what the plan trains and freezes; returns one handle for each of the two that occurs."""
    if report.plan is None:
        return []
    trained = set(report.plan.trained_layers)
    partly = ", in part" if report.plan.patterns else ""
    looks = {True: (ORANGE, f"trained{partly}"), False: (SKY, "frozen")}
    handles = {}
    for trains, group in groupby(range(report.num_layers), key=trained.__contains__):
        run = list(group)
        colour, label = looks[trains]
        handles[trains] = axes.axvspan(
            run[0] - 0.5, run[-1] + 0.5, color=colour, alpha=0.18, linewidth=0, zorder=0, label=label
        )
    return [handles[trains] for trains in (True, False) if trains in handles]


def _number_layers(axes: Axes, num_layers: int) -> None:
    numbers = _DIGITS // len(str(num_layers))
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, num_layers) if num_layers <= step * numbers)
    axes.set_xlim(-1.6, num_layers - 0.4)
    axes.set_xticks(range(0, num_layers, step), [str(layer) for layer in range(0, num_layers, step)])
    axes.set_xticks([-1], ["emb"], minor=True)
    if num_layers > _ROOMY:
        axes.tick_params(which="minor", pad=4 + 1.2 * _LABEL)


def _after(diagnosis: Diagnosis) -> dict[str, object]:
    outline = [withStroke(linewidth=5, foreground="white")]
    style = {"color": BLACK, "linestyle": "--", "linewidth": 2.5, "zorder": 5, "path_effects": outline}
    return {**style, "label": f"after step {diagnosis.step}"}


def _add_legend(axes: Axes, handles: Sequence[Artist]) -> None:
    place = {"loc": "upper left", "bbox_to_anchor": (1.005, 1), "borderaxespad": 0}
    legend = axes.legend(handles=list(handles), frameon=False, fontsize=_LABEL, labelspacing=0.3, **place)
    for text in legend.get_texts():
        text.set(**_LITERAL)


def _name(text: str, limit: int = _NAME_LIMIT) -> str:
    """A string of the report that the font can draw; boxes stand for what it lacks."""
    glyphs = get_font(findfont(FontProperties())).get_charmap()
    drawable = "".join(char if ord(char) in glyphs else "□" for char in one_line(text, limit))
    # Legends leave out what starts with an underscore.
    return drawable.lstrip("_") or "unnamed"
