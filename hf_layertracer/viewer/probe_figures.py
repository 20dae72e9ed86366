"""What the lens reads of single probes, as Plotly figures; all text in them is escaped."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from ..records import ReportData
from ..report.palette import BLUE
from .chart_style import after_layer, dress, line, name_layers, say_instead
from .escaping import for_plotly


_CONTROL = 13  # grey and dotted, of the looks of lines


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
    name_layers(figure, report.num_layers)
    figure.update_yaxes(type="category", autorange="reversed")
    figure.update_layout(height=140 + 18 * len(probes))
    return figure


def probe_figure(report: ReportData, probe: int) -> go.Figure:
    """The lens curve of one probe over the mean of all.

    Args:
        report ([`ReportData`]): The report, with a valid lens.
        probe (`int`): The probe's number.

    Returns:
        `go.Figure`: Its curve and the mean; with the negative control, where the report has one.
    """
    figure, lens = go.Figure(), report.first.lens
    dress(figure, f"Lens probability of probe {probe}", "layer", "probability")
    depth = list(range(-1, report.num_layers))
    figure.add_scatter(
        x=depth,
        y=lens.mean_probability,
        mode="lines",
        line={"color": BLUE, "width": 3},
        name="mean of all probes",
        hovertext=[
            f"mean of all probes, {after_layer(i)}: {v:.4f}" for i, v in zip(depth, lens.mean_probability, strict=True)
        ],
        hoverinfo="text",
    )
    if lens.control is not None:
        texts = [f"targets of other probes: {value:.4f}" for value in lens.control.mean_probability]
        looks = line(_CONTROL, "targets of other probes (mean)")
        figure.add_scatter(x=depth, y=lens.control.mean_probability, hovertext=texts, **looks)
    curve = lens.per_probe[probe]
    texts = [f"probe {probe}, {after_layer(i)}: {v:.4f}" for i, v in zip(depth, curve, strict=True)]
    figure.add_scatter(x=depth, y=curve, hovertext=texts, **line(0, f"probe {probe}"))
    figure.update_yaxes(rangemode="tozero")
    name_layers(figure, report.num_layers)
    return figure
