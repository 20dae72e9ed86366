"""A plan and the history of a run as Plotly figures; all text in them is escaped."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from ..planning.cost import training_bytes
from ..planning.fitting import frozen_by
from ..planning.outside import BY_NAME, FROZEN, TRAINED, planned_outside
from ..records import LayerPlan, ModelFacts, ReportData
from ..report.palette import ORANGE, PURPLE, SKY
from ..text import with_error
from .chart_style import BAR_WIDTH, dress, explain, line
from .escaping import for_plotly
from .units import amount, layer, size


_LOOKS: dict[str, dict[str, Any]] = {
    TRAINED: {"color": ORANGE},
    BY_NAME: {"color": ORANGE, "pattern": {"shape": "/", "fgcolor": "white"}},
    FROZEN: {"color": SKY},
}
_POINTS = 40  # of a curve over the layers


def plan_figure(facts: ModelFacts, plan: LayerPlan) -> go.Figure:
    """The plan as a stack, from the embedding at the bottom to the head on top.

    Args:
        facts ([`ModelFacts`]): The model.
        plan ([`LayerPlan`]): The plan.

    Returns:
        `go.Figure`: A trace each of what trains, of what trains where names match, and of what is frozen.
    """
    outside, trained, layers = planned_outside(plan, facts.tied), set(plan.trained_layers), facts.layers
    inside = BY_NAME if plan.patterns else TRAINED
    stack = [("embedding", outside["embeddings"], "the embedding")]
    stack += [
        (
            f"layer {i}",
            inside if i in trained else FROZEN,
            f"layer {i} ({for_plotly(layer.kind)}), {amount(layer.size)} parameters",
        )
        for i, layer in enumerate(layers)
    ]
    stack += [("final norm", outside["norm"], "the final norm"), ("head", outside["head"], "the output head")]
    figure = go.Figure()
    for name, look in _LOOKS.items():
        rows = [(label, hover) for label, does, hover in stack if does == name]
        if not rows:
            continue
        figure.add_bar(
            x=[1] * len(rows),
            y=[label for label, _ in rows],
            orientation="h",
            width=BAR_WIDTH,
            marker={**look, "line": {"width": 0}},
            name=name,
            hovertext=[
                f"<b>{hover}: {name}</b><br>{explain(FROZEN if name == FROZEN else TRAINED)}" for _, hover in rows
            ],
            hoverinfo="text",
        )
    dress(figure, f"Plan: {for_plotly(plan.strategy)}", "", "")
    figure.update_xaxes(visible=False, fixedrange=True)
    step = max(1, len(layers) // 24)
    named = ["embedding", *(f"layer {i}" for i in range(0, len(layers), step)), "final norm", "head"]
    order = [label for label, _, _ in stack]
    figure.update_yaxes(categoryorder="array", categoryarray=order, tickvals=named, fixedrange=True, showgrid=False)
    figure.update_layout(barmode="overlay", height=max(320, min(720, 120 + 16 * len(stack))))
    return figure


def memory_figure(facts: ModelFacts, plan: LayerPlan) -> go.Figure:
    """What fits: memory of weights, gradients and Adam's moments against the fraction of the layers that is frozen.

    Args:
        facts ([`ModelFacts`]): The model.
        plan ([`LayerPlan`]): The plan that is tried, marked among the others.

    Returns:
        `go.Figure`: A curve each for freezing from the deep and from the shallow end, and the plan.
    """
    figure, total = go.Figure(), facts.num_layers
    step = max(1, total // _POINTS)
    counts = sorted({*range(0, total, step), total - 1})
    for number, strategy in enumerate(("freeze-deep", "freeze-shallow")):
        plans = [frozen_by(facts, plan, strategy, frozen, outside=True) for frozen in counts]
        sizes = [training_bytes(facts, other.savings) for other in plans]
        figure.add_scatter(
            x=[frozen / total for frozen in counts],
            y=[value / 2**30 for value in sizes],
            hovertext=[
                f"<b>{strategy}, {frozen} of {total} layers frozen</b><br>{size(value)}"
                for frozen, value in zip(counts, sizes, strict=True)
            ],
            **line(number, strategy),
        )
    taken = training_bytes(facts, plan.savings)
    share = len(plan.frozen_layers) / total
    figure.add_scatter(
        x=[share],
        y=[taken / 2**30],
        mode="markers",
        marker={"symbol": "diamond", "size": 14, "color": PURPLE},
        name=f"this plan: {size(taken)}",
        hovertext=f"<b>this plan</b>, {share:.0%} of the layers frozen<br>{size(taken)}",
        hoverinfo="text",
    )
    dress(figure, "What fits: weights, gradients and Adam's moments", "fraction of the layers that is frozen", "GiB")
    figure.update_xaxes(tickformat=".0%", range=[-0.02, 1.02])
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(showlegend=True, height=340)
    return figure


def history_figure(report: ReportData) -> go.Figure:
    """How the Task Particle and Layer Sensitivity moved during training.

    Args:
        report ([`ReportData`]): The report, with later diagnoses.

    Returns:
        `go.Figure`: Above, Layer Sensitivity by step and layer; below, the Task Particle by step.
    """
    from plotly.subplots import make_subplots

    steps = [diagnosis.step for diagnosis in report.diagnoses]
    rows = [diagnosis.sensitivity.mean for diagnosis in report.diagnoses]
    figure = make_subplots(rows=2, cols=1, vertical_spacing=0.2, row_heights=[0.6, 0.4])
    names = [str(step) for step in steps]
    figure.add_heatmap(
        z=[list(row) for row in rows],
        x=list(range(report.num_layers)),
        y=names,
        colorscale="Cividis",
        colorbar={"title": "bits", "len": 0.6, "y": 0.75},
        hovertext=[
            [
                f"<b>step {step}, layer {i}</b><br>{with_error(v)} bits<br>{explain('Layer Sensitivity')}"
                for i, v in enumerate(row)
            ]
            for step, row in zip(steps, rows, strict=True)
        ],
        hoverinfo="text",
        row=1,
        col=1,
    )
    particles = [(str(diagnosis.step), diagnosis.task_particle) for diagnosis in report.diagnoses]
    known = [(step, p.layer, p.interval or (p.layer, p.layer)) for step, p in particles if p.layer is not None]
    figure.add_scatter(
        x=[step for step, _, _ in known],
        y=[value for _, value, _ in known],
        error_y={
            "array": [max(0, span[1] - value) for _, value, span in known],
            "arrayminus": [max(0, value - span[0]) for _, value, span in known],
        },
        mode="lines+markers",
        line={"color": PURPLE, "width": 3},
        name="Task Particle",
        hovertext=[
            f"<b>step {step}: layer {layer(value)}</b> (95 % interval {layer(span[0])} to {layer(span[1])})"
            f"<br>{explain('Task Particle')}"
            for step, value, span in known
        ],
        hoverinfo="text",
        row=2,
        col=1,
    )
    dress(figure, "During training: Layer Sensitivity above, Task Particle below", "", "")
    figure.update_xaxes(title="layer", row=1, col=1)
    figure.update_yaxes(title="step", type="category", row=1, col=1)
    figure.update_xaxes(title="step", type="category", categoryarray=names, row=2, col=1)
    figure.update_yaxes(title="layer", range=[-0.5, report.num_layers - 0.5], row=2, col=1)
    figure.update_layout(height=560, showlegend=False)
    return figure
