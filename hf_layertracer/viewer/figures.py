"""Layer Sensitivity, a plan and the history of a run as Plotly figures; all text in them is escaped."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from ..records import LayerPlan, ReportData
from ..report.palette import ORANGE, PURPLE, SKY, kind_colours
from ..text import with_error
from .chart_style import dress, explain, line, wrapped
from .escaping import for_plotly
from .glossary import GLOSSARY
from .units import amount, layer


_TRAINED, _FROZEN = ORANGE, SKY
_BAR_WIDTH = 0.8  # of the distance between two layers


def sensitivity_figure(report: ReportData, tasks: Sequence[str] = ()) -> go.Figure:
    """Layer Sensitivity of each layer with its standard error, coloured by the kind of layer.

    Args:
        report ([`ReportData`]): The report.
        tasks (`Sequence[str]`, *optional*): Tasks to draw as lines over the bars.

    Returns:
        `go.Figure`: One trace a kind of layer, and one a task.
    """
    scores, figure = report.first.sensitivity, go.Figure()
    kinds = [layer.kind for layer in report.model.layers]
    known = scores.stderr_known
    for kind, colour in kind_colours(kinds).items():
        layers = [index for index, other in enumerate(kinds) if other == kind]
        figure.add_bar(
            x=layers,
            y=[scores.mean[index] for index in layers],
            error_y={"array": [scores.stderr[index] for index in layers], "thickness": 1.5} if known else None,
            width=_BAR_WIDTH,  # by itself Plotly fills the gaps between the layers of a rare kind
            marker={"color": colour},
            name=for_plotly(kind),
            hovertext=[_sensitivity_hover(report, index) for index in layers],
            hoverinfo="text",
        )
    for number, task in enumerate(task for task in tasks if task in scores.by_task):
        figure.add_scatter(
            x=list(range(report.num_layers)),
            y=scores.by_task[task],
            hovertext=[
                f"{for_plotly(task)}, layer {i}: {with_error(v)} bits" for i, v in enumerate(scores.by_task[task])
            ],
            **line(number, task),
        )
    errors = "bars: ±1 standard error" if known else "one perturbation: no standard error"
    top = max(m + min(e, 1) for m, e in zip(scores.mean, scores.stderr, strict=True))
    top = max([top, 1e-3, *(max(scores.by_task[task]) for task in tasks if task in scores.by_task)])
    shaded = "; shaded: trained" if report.plan is not None else ""
    signs = "; ▼ vulnerable layer" + (", ▽ contender" if len(scores.contenders or []) > 1 else "")
    dress(figure, f"Layer Sensitivity ({errors}{signs}{shaded})", "layer", "divergence in bits")
    _shade_trained(figure, report)
    _mark_vulnerable(figure, report)
    figure.update_xaxes(range=[-0.7, report.num_layers - 0.3])
    figure.update_yaxes(range=[0, top * 1.16])
    figure.update_layout(showlegend=len(set(kinds)) > 1 or len(figure.data) > 1, barmode="overlay")
    return figure


def plan_figure(plan: LayerPlan, kinds: Sequence[str], parameters: Sequence[int]) -> go.Figure:
    """The plan as a stack, from the embedding at the bottom to the head on top.

    Args:
        plan ([`LayerPlan`]): The plan.
        kinds (`Sequence[str]`): Kind of each layer.
        parameters (`Sequence[int]`): Parameters of each layer.

    Returns:
        `go.Figure`: A trace each of what trains and what is frozen.
    """
    trained = set(plan.trained_layers)
    stack = [("embedding", plan.train_embeddings, "the embedding")]
    stack += [
        (f"layer {i}", i in trained, f"layer {i} ({for_plotly(kind)}), {amount(size)} parameters")
        for i, (kind, size) in enumerate(zip(kinds, parameters, strict=True))
    ]
    stack += [("final norm", plan.train_norm, "the final norm"), ("head", plan.train_head, "the output head")]
    figure = go.Figure()
    partly = " in part" if plan.patterns else ""
    for trains, name, colour in ((True, f"trained{partly}", _TRAINED), (False, "frozen", _FROZEN)):
        rows = [(label, hover) for label, does, hover in stack if does == trains]
        figure.add_bar(
            x=[1] * len(rows),
            y=[label for label, _ in rows],
            orientation="h",
            width=_BAR_WIDTH,
            marker={"color": colour, "line": {"width": 0}},
            name=name,
            hovertext=[f"<b>{hover}: {name}</b><br>{explain('trained' if trains else 'frozen')}" for _, hover in rows],
            hoverinfo="text",
        )
    dress(figure, f"Plan: {for_plotly(plan.strategy)}", "", "")
    figure.update_xaxes(visible=False, fixedrange=True)
    step = max(1, len(kinds) // 24)
    named = ["embedding", *(f"layer {i}" for i in range(0, len(kinds), step)), "head"]
    order = [label for label, _, _ in stack]
    figure.update_yaxes(categoryorder="array", categoryarray=order, tickvals=named, fixedrange=True, showgrid=False)
    figure.update_layout(barmode="overlay", height=max(320, min(720, 120 + 16 * len(stack))))
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


def _sensitivity_hover(report: ReportData, index: int) -> str:
    scores, facts = report.first.sensitivity, report.model.layers[index]
    size = with_error(scores.mean[index], scores.stderr[index] if scores.stderr_known else None)
    plan = report.plan
    does = "" if plan is None else f", {'trained' if index in plan.trained_layers else 'frozen'} by the plan"
    role = "vulnerable layer" if index == scores.vulnerable_layer else "contender"
    aside = f"<br><i>{role}: {wrapped(GLOSSARY[role])}</i>" if index in (scores.contenders or []) else ""
    return (
        f"<b>layer {index}</b> ({for_plotly(facts.kind)}{does})<br>Layer Sensitivity {size} bits"
        f"<br>{explain('Layer Sensitivity')}{aside}"
    )


def _shade_trained(figure: go.Figure, report: ReportData) -> None:
    """Bands behind the layers that the plan trains."""
    trained = sorted(report.plan.trained_layers) if report.plan else []
    starts = [layer for layer in trained if layer - 1 not in trained]
    ends = [layer for layer in trained if layer + 1 not in trained]
    for start, end in zip(starts, ends, strict=True):
        figure.add_vrect(x0=start - 0.5, x1=end + 0.5, fillcolor=_TRAINED, opacity=0.12, line_width=0, layer="below")


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
        )
