"""The two charts of a report on one layer axis: Layer Sensitivity above, lens probability below. All text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..records import ReportData
from ..report.palette import BLUE, ORANGE, PURPLE, kind_colours
from ..text import with_error
from .chart_style import BAR_WIDTH, after_layer, dress, explain, line, name_layers, say_instead, titled, wrapped
from .escaping import for_plotly
from .glossary import GLOSSARY
from .units import layer


_HEIGHT = 600
_CONTROL = 13  # grey and dotted, of the looks of lines
_MARKED = 40  # most layers whose points are marked on a curve
_ABOVE, _BELOW = {"row": 1, "col": 1}, {"row": 2, "col": 1}


def layer_figure(report: ReportData, tasks: Sequence[str] = ()) -> go.Figure:
    """Layer Sensitivity with its standard errors, and below it what the model would answer after each layer.

    Marked are the vulnerable layer and its contenders, the layers that the plan trains, and the Task Particle with its
    interval. Both charts share the layer axis, and hovering reads both.

    Args:
        report ([`ReportData`]): The report.
        tasks (`Sequence[str]`, *optional*): Tasks to draw as lines in both charts.

    Returns:
        `go.Figure`: The charts; a sentence in place of the lower one where the lens is not valid.
    """
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.16)
    dress(figure, "", "", "")
    top = _draw_sensitivity(figure, report, tasks)
    figure.update_yaxes(title="divergence in bits", range=[0, top * 1.16], **_ABOVE)
    if report.first.lens.mean_probability:
        _draw_lens(figure, report, tasks)
    else:
        reason = for_plotly(report.first.lens.reason or "it was not measured", 200)
        say_instead(figure, f"The lens is not valid for this model: {reason}.", **_BELOW)
    _shade_trained(figure, report)
    titled(figure, _sensitivity_title(report), 1)
    titled(figure, "Lens probability of the right answer<br>after each layer", 2)
    name_layers(figure, report.num_layers)
    figure.update_xaxes(range=[-1.6, report.num_layers - 0.3], unifiedhovertitle={"text": " "})  # the lines name it
    figure.update_xaxes(title="layer", **_BELOW)
    figure.update_layout(
        hovermode="x unified", hoversubplots="axis", barmode="overlay", height=_HEIGHT, showlegend=True
    )
    return figure


def _draw_sensitivity(figure: go.Figure, report: ReportData, tasks: Sequence[str]) -> float:
    """The upper chart; gives its highest value."""
    scores, kinds = report.first.sensitivity, [facts.kind for facts in report.model.layers]
    for kind, colour in kind_colours(kinds).items():
        layers = [index for index, other in enumerate(kinds) if other == kind]
        figure.add_bar(
            x=layers,
            y=[scores.mean[index] for index in layers],
            error_y={"array": [scores.stderr[i] for i in layers], "thickness": 1.5} if scores.stderr_known else None,
            width=BAR_WIDTH,  # by itself Plotly fills the gaps between the layers of a rare kind
            marker={"color": colour},
            name=for_plotly(kind),
            hovertext=[_sensitivity_hover(report, index) for index in layers],
            hoverinfo="text",
            **_ABOVE,
        )
    lines = {f"perturbation {name}": other.mean for name, other in list(report.first.sensitivities.items())[1:]}
    lines |= {task: scores.by_task[task] for task in tasks if task in scores.by_task}
    for number, (name, values) in enumerate(lines.items()):
        _draw_line(figure, number, name, range(report.num_layers), values, "bits", _ABOVE)
    _mark_vulnerable(figure, report)
    highest = [m + min(e, 1) for m, e in zip(scores.mean, scores.stderr, strict=True)]
    return max(1e-3, *highest, *(max(values) for values in lines.values()))


def _draw_lens(figure: go.Figure, report: ReportData, tasks: Sequence[str]) -> None:
    """The lower chart."""
    lens, depth = report.first.lens, list(range(-1, report.num_layers))
    errors = [f" ± {error:.4f}" if lens.stderr_known else "" for error in lens.stderr]
    if lens.stderr_known:
        readings = list(zip(lens.mean_probability, lens.stderr, strict=True))
        figure.add_scatter(
            x=depth + depth[::-1],
            y=[min(1.0, mean + error) for mean, error in readings]
            + [max(0.0, mean - error) for mean, error in reversed(readings)],
            fill="toself",
            fillcolor="rgba(0, 114, 178, 0.25)",
            line={"width": 0},
            hoverinfo="skip",
            name="±1 standard error",
            **_BELOW,
        )
    figure.add_scatter(
        x=depth,
        y=lens.mean_probability,
        mode="lines+markers" if report.num_layers <= _MARKED else "lines",
        line={"color": BLUE, "width": 3},
        name="mean of all probes",
        hovertext=[
            f"<b>{after_layer(i)}</b><br>lens probability {mean:.4f}{error}<br>{explain('lens probability')}"
            for i, mean, error in zip(depth, lens.mean_probability, errors, strict=True)
        ],
        hoverinfo="text",
        **_BELOW,
    )
    if lens.control is not None:
        chance = line(_CONTROL, "targets of other probes")
        texts = [f"targets of other probes: {value:.4f}" for value in lens.control.mean_probability]
        figure.add_scatter(x=depth, y=lens.control.mean_probability, hovertext=texts, **chance, **_BELOW)
    perturbations = len(report.first.sensitivities) - 1
    for number, task in enumerate(task for task in tasks if task in lens.by_task):
        _draw_line(figure, perturbations + number, task, depth, lens.by_task[task], "", _BELOW, showlegend=False)
    _mark_particle(figure, report)
    figure.update_yaxes(title="probability", rangemode="tozero", **_BELOW)


def _draw_line(
    figure: go.Figure,
    number: int,
    name: str,
    depth: Sequence[int],
    values: Sequence[float],
    unit: str,
    place: dict[str, int],
    **options: Any,
) -> None:
    shown = for_plotly(name)
    texts = [f"{shown}: {value:.4f} {unit}".rstrip() for value in values]
    figure.add_scatter(x=list(depth), y=values, hovertext=texts, **line(number, name), **place, **options)


def _sensitivity_title(report: ReportData) -> str:
    scores = report.first.sensitivity
    errors = ", ±1 standard error" if scores.stderr_known else " of one perturbation: no standard error"
    contenders = ", ▽ contender" if len(scores.contenders or []) > 1 else ""
    shaded = "; shaded: trained" if report.plan is not None else ""
    lines = f"Layer Sensitivity{errors}", f"▼ vulnerable layer{contenders}{shaded}"
    return "<br>".join(wrapped(line, 42) for line in lines)


def _sensitivity_hover(report: ReportData, index: int) -> str:
    scores, facts = report.first.sensitivity, report.model.layers[index]
    measured = with_error(scores.mean[index], scores.stderr[index] if scores.stderr_known else None)
    does = "" if report.plan is None else ", trained" if index in report.plan.trained_layers else ", frozen"
    role = "vulnerable layer" if index == scores.vulnerable_layer else "contender"
    aside = f"<br><i>{role}: {wrapped(GLOSSARY[role])}</i>" if index in (scores.contenders or []) else ""
    return (
        f"<b>layer {index}</b> ({for_plotly(facts.kind)}{does})<br>Layer Sensitivity {measured} bits"
        f"<br>{explain('Layer Sensitivity')}{aside}"
    )


def _shade_trained(figure: go.Figure, report: ReportData) -> None:
    """Bands behind the layers that the plan trains, in both charts."""
    trained = sorted(report.plan.trained_layers) if report.plan else []
    starts = [layer for layer in trained if layer - 1 not in trained]
    ends = [layer for layer in trained if layer + 1 not in trained]
    for start, end in zip(starts, ends, strict=True):
        for place in (_ABOVE, _BELOW):
            band = {"fillcolor": ORANGE, "opacity": 0.12, "line_width": 0, "layer": "below"}
            figure.add_vrect(x0=start - 0.5, x1=end + 0.5, **band, **place)


def _mark_vulnerable(figure: go.Figure, report: ReportData) -> None:
    """A triangle over the bar of the vulnerable layer, an empty one over those that cannot be told from it."""
    scores = report.first.sensitivity
    for index in sorted({scores.vulnerable_layer, *(scores.contenders or [])}):
        role = "vulnerable layer" if index == scores.vulnerable_layer else "contender"
        figure.add_annotation(
            x=index,
            y=scores.mean[index] + (min(scores.stderr[index], 1) if scores.stderr_known else 0),
            text="▼" if role == "vulnerable layer" else "▽",
            hovertext=f"<b>layer {index}: {role}</b><br>{explain(role)}",
            showarrow=False,
            yshift=9,
            **_ABOVE,
        )


def _mark_particle(figure: go.Figure, report: ReportData) -> None:
    """The Task Particle as a line, its interval as a band behind the curves."""
    particle = report.first.task_particle
    if particle.layer is None:
        return
    interval = ""
    if particle.interval is not None:
        low, high = particle.interval
        figure.add_vrect(x0=low, x1=high, fillcolor=PURPLE, opacity=0.2, line_width=0, layer="below", **_BELOW)
        interval = f" (95 % interval {layer(low)} to {layer(high)})"
    figure.add_scatter(
        x=[particle.layer, particle.layer],
        y=[0, max(report.first.lens.mean_probability)],
        mode="lines+markers",
        line={"color": PURPLE, "width": 3},
        name=f"Task Particle: layer {layer(particle.layer)}",
        hovertext=f"<b>Task Particle: layer {layer(particle.layer)}</b>{interval}<br>{explain('Task Particle')}",
        hoverinfo="text",
        **_BELOW,
    )
