"""What the lens reads, as Plotly figures; all text in them is escaped."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from ..records import ReportData
from ..report.palette import BLUE, PURPLE
from .chart_style import after_layer, dress, explain, line, name_embedding, say_instead
from .escaping import for_plotly
from .units import layer


def lens_figure(report: ReportData, tasks: Sequence[str] = (), probes: Sequence[int] = ()) -> go.Figure:
    """Lens probability after each layer: the mean with its error, tasks, probes, and the Task Particle's interval.

    Args:
        report ([`ReportData`]): The report, with a valid lens.
        tasks (`Sequence[str]`, *optional*): Tasks to draw.
        probes (`Sequence[int]`, *optional*): Probes to draw.

    Returns:
        `go.Figure`: The curves; one sentence in place of them where the lens is not valid.
    """
    lens, figure = report.first.lens, go.Figure()
    dress(figure, "Lens probability of the right answer after each layer", "layer", "probability")
    if not lens.mean_probability:
        reason = for_plotly(lens.reason or "it was not measured", 200)
        return say_instead(figure, f"The lens is not valid for this model: {reason}.")
    depth = list(range(-1, report.num_layers))
    low = [max(0.0, m - e) for m, e in zip(lens.mean_probability, lens.stderr, strict=True)]
    high = [min(1.0, m + e) for m, e in zip(lens.mean_probability, lens.stderr, strict=True)]
    figure.add_scatter(
        x=depth + depth[::-1],
        y=high + low[::-1],
        fill="toself",
        fillcolor="rgba(0, 114, 178, 0.25)",
        line={"width": 0},
        hoverinfo="skip",
        name="±1 standard error",
    )
    figure.add_scatter(
        x=depth,
        y=lens.mean_probability,
        mode="lines+markers" if report.num_layers <= 40 else "lines",
        line={"color": BLUE, "width": 3},
        name="mean of all probes",
        hovertext=[
            f"<b>{after_layer(i)}</b><br>mean lens probability {m:.4f} ± {e:.4f}<br>{explain('lens probability')}"
            for i, m, e in zip(depth, lens.mean_probability, lens.stderr, strict=True)
        ],
        hoverinfo="text",
    )
    curves = [(task, lens.by_task[task]) for task in tasks if task in lens.by_task]
    curves += [(f"probe {i}", lens.per_probe[i]) for i in probes if 0 <= i < len(lens.per_probe)]
    for number, (name, curve) in enumerate(curves):
        texts = [f"{for_plotly(name)}, {after_layer(i)}: {v:.4f}" for i, v in zip(depth, curve, strict=True)]
        figure.add_scatter(x=depth, y=curve, hovertext=texts, **line(number, name))
    _mark_particle(figure, report)
    figure.update_yaxes(rangemode="tozero")
    name_embedding(figure, report.num_layers)
    return figure


def probes_figure(report: ReportData, probes: Sequence[int]) -> go.Figure:
    """What the lens reads of some probes: a row a probe, a column a layer, the likeliest token on hover.

    Args:
        report ([`ReportData`]): The report.
        probes (`Sequence[int]`): The probes, from the top down.

    Returns:
        `go.Figure`: A heat map.
    """
    figure, lens = go.Figure(), report.first.lens
    dress(figure, "Lens probability of each probe", "layer", "probe")
    if not lens.per_probe or not probes:
        return say_instead(figure, "The lens was not read." if not lens.per_probe else "No probe fits the choice.")
    depth = list(range(-1, report.num_layers))

    def hover(probe: int, column: int) -> str:
        said = f"<br>likeliest token: {for_plotly(repr(lens.top_tokens[probe][column]))}" if lens.top_tokens else ""
        return f"<b>probe {probe}, {after_layer(depth[column])}</b><br>{lens.per_probe[probe][column]:.4f}{said}"

    figure.add_heatmap(
        z=[lens.per_probe[probe] for probe in probes],
        x=depth,
        y=[str(probe) for probe in probes],
        zmin=0,
        zmax=1,
        colorscale="Cividis",
        colorbar={"title": "probability"},
        hovertext=[[hover(probe, column) for column in range(len(depth))] for probe in probes],
        hoverinfo="text",
    )
    name_embedding(figure, report.num_layers)
    figure.update_yaxes(type="category", autorange="reversed")
    figure.update_layout(height=140 + 18 * len(probes))
    return figure


def _mark_particle(figure: go.Figure, report: ReportData) -> None:
    """The Task Particle as a line, its interval as a band behind the curves."""
    particle = report.first.task_particle
    if particle.layer is None:
        return
    interval = ""
    if particle.interval is not None:
        low, high = particle.interval
        figure.add_vrect(x0=low, x1=high, fillcolor=PURPLE, opacity=0.2, line_width=0, layer="below")
        interval = f" (95 % interval {layer(low)} to {layer(high)})"
    top = max(report.first.lens.mean_probability)
    figure.add_scatter(
        x=[particle.layer, particle.layer],
        y=[0, top],
        mode="lines+markers",
        line={"color": PURPLE, "width": 3},
        name=f"Task Particle: layer {layer(particle.layer)}",
        hovertext=f"<b>Task Particle: layer {layer(particle.layer)}</b>{interval}<br>{explain('Task Particle')}",
        hoverinfo="text",
    )
