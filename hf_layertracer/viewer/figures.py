"""The interactive pictures of one report, as Plotly figures; all text in them is a report's and is escaped."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from ..records import LayerPlan, ReportData
from ..report.palette import BLUE, ORANGE, PURPLE, SKY, kind_colours
from .chart_style import after_layer, dress, explain, line, name_embedding, say_instead, wrapped
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
            hovertext=[f"{for_plotly(task)}, layer {i}: {v:.3f} bits" for i, v in enumerate(scores.by_task[task])],
            **line(number, task),
        )
    estimate = ", estimated from gradients" if scores.estimate else ""
    errors = "bars: ±1 standard error" if known else "one perturbation: no standard error"
    top = max(m + min(e, 1) for m, e in zip(scores.mean, scores.stderr, strict=True))
    top = max([top, 1e-3, *(max(scores.by_task[task]) for task in tasks if task in scores.by_task)])
    shaded = "; shaded: trained" if report.plan is not None else ""
    signs = "; ▼ vulnerable layer" + (", ▽ contender" if len(scores.contenders or []) > 1 else "")
    dress(figure, f"Layer Sensitivity{estimate} ({errors}{signs}{shaded})", "layer", "divergence in bits")
    _shade_trained(figure, report)
    _mark_vulnerable(figure, report)
    figure.update_xaxes(range=[-0.7, report.num_layers - 0.3])
    figure.update_yaxes(range=[0, top * 1.16])
    figure.update_layout(showlegend=len(set(kinds)) > 1 or len(figure.data) > 1, barmode="overlay")
    return figure


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
                f"<b>step {step}, layer {i}</b><br>{v:.3f} bits<br>{explain('Layer Sensitivity')}"
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


def _sensitivity_hover(report: ReportData, index: int) -> str:
    scores, facts = report.first.sensitivity, report.model.layers[index]
    error = f" ± {scores.stderr[index]:.3f}" if scores.stderr_known else ""
    plan = report.plan
    does = "" if plan is None else f", {'trained' if index in plan.trained_layers else 'frozen'} by the plan"
    role = "vulnerable layer" if index == scores.vulnerable_layer else "contender"
    aside = f"<br><i>{role}: {wrapped(GLOSSARY[role])}</i>" if index in (scores.contenders or []) else ""
    return (
        f"<b>layer {index}</b> ({for_plotly(facts.kind)}{does})<br>Layer Sensitivity {scores.mean[index]:.3f}{error} bits"
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
