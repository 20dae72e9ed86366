"""Two or more reports beside each other, by their first diagnosis, on a relative-depth axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any, TypeVar

import plotly.graph_objects as go

from ..records import Measured, ReportData
from ..text import with_error
from .chart_style import after_layer, dress, explain, line, say_instead
from .escaping import for_plotly, plain
from .units import amount, layer, number


_BINS = 10
_SETTINGS = ("mask_ratio", "noise_scale", "rise", "min_probability")
Table = tuple[list[str], list[list[str]]]
_Report = TypeVar("_Report", bound=ReportData)


def sensitivity_curves(reports: Mapping[str, ReportData]) -> go.Figure:
    """Layer Sensitivity of several reports on one axis.

    Args:
        reports (`Mapping[str, ReportData]`): The reports by the name to show.

    Returns:
        `go.Figure`: A curve with error bars for each report.
    """
    figure = go.Figure()
    for number_, (name, report) in enumerate(reports.items()):
        scores, total = report.first.sensitivity, report.num_layers
        figure.add_scatter(
            x=[report.relative_depth(index) for index in range(total)],
            y=scores.mean,
            error_y={"array": scores.stderr, "thickness": 1} if scores.stderr_known else None,
            hovertext=[
                f"<b>{for_plotly(name)}, layer {i} of {total}</b><br>"
                f"{with_error(mean, stderr if scores.stderr_known else None)} bits<br>{explain('Layer Sensitivity')}"
                for i, (mean, stderr) in enumerate(zip(scores.mean, scores.stderr, strict=True))
            ],
            **line(number_, name),
        )
    dress(figure, "Layer Sensitivity on relative depth", "relative depth", "divergence in bits")
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(showlegend=True)
    return figure


def lens_curves(reports: Mapping[str, ReportData]) -> go.Figure:
    """Mean lens probability of several reports on one axis, with their Task Particles.

    Args:
        reports (`Mapping[str, ReportData]`): The reports by the name to show.

    Returns:
        `go.Figure`: A curve for each report whose lens is valid.
    """
    figure = go.Figure()
    dress(figure, "Lens probability on relative depth (♦: Task Particle)", "relative depth", "probability")
    for number_, (name, report) in enumerate(reports.items()):
        curve, total = report.first.lens.mean_probability, report.num_layers
        if not curve:
            continue
        looks = line(number_, name)
        figure.add_scatter(
            x=[report.relative_depth(index) for index in range(-1, total)],
            y=curve,
            hovertext=[
                f"<b>{for_plotly(name)}, {after_layer(i - 1)}</b><br>{value:.4f}<br>{explain('lens probability')}"
                for i, value in enumerate(curve)
            ],
            **looks,
        )
        particle = report.first.task_particle.layer
        if particle is not None:
            figure.add_scatter(
                x=[report.relative_depth(particle)],
                y=[curve[min(total, math.floor(particle) + 1)]],
                mode="markers",
                marker={"symbol": "diamond", "size": 12, "color": looks["line"]["color"]},
                hovertext=f"<b>{for_plotly(name)}</b><br>layer {layer(particle)}<br>{explain('Task Particle')}",
                hoverinfo="text",
                showlegend=False,
            )
    if not figure.data:
        return say_instead(figure, "None of these reports has a valid lens.")
    figure.update_layout(showlegend=True)
    return figure


def after_training(report: _Report) -> _Report:
    """A report as if its latest diagnosis had been its only one.

    Args:
        report ([`ReportData`]): The report.

    Returns:
        [`ReportData`]: A copy without the earlier diagnoses.
    """
    return report.model_copy(update={"diagnoses": report.diagnoses[-1:]})


def cautions(reports: Mapping[str, ReportData]) -> list[str]:
    """Why a difference between these reports may be one of measurement.

    Args:
        reports (`Mapping[str, ReportData]`): The reports by name; the first is what the others are compared with.

    Returns:
        `list[str]`: A sentence each.
    """
    first, *others = reports.values()
    found = []
    if any(other.probes.sha256 != first.probes.sha256 for other in others):
        found.append(
            "The probes are not the same, or were cut into other tokens: compare shapes along the depth. Differences of "
            "values are left out."
        )
    settings = {"perturbation": [report.first.perturbation for report in reports.values()]}
    settings |= {name: [getattr(report.settings, name) for report in reports.values()] for name in _SETTINGS}
    for setting, used in settings.items():
        values = {plain(value) for value in used}
        if len(values) > 1:
            found.append(f"They were measured with different settings: {setting} {', '.join(sorted(values))}.")
    return found


def difference_table(reports: Mapping[str, ReportData], comparable: bool = True) -> Table:
    """Headline values of several reports, the later ones with their difference from the first.

    Args:
        reports (`Mapping[str, ReportData]`): The reports by name.
        comparable (`bool`, *optional*, defaults to `True`): Whether differences mean anything; see [`cautions`].

    Returns:
        `tuple[list[str], list[list[str]]]`: The header, and a row a quantity.
    """

    def measured(name: str) -> Callable[[ReportData], Any]:
        return lambda report: report.first.headline()[name]

    quantities = {
        "layers": (lambda r: r.num_layers, 0),
        "Task Particle (layer)": (measured("task_particle"), 1),
        "Task Particle (relative depth)": (lambda r: r.relative_depth(r.first.task_particle.layer), 3),
        "vulnerable layer": (measured("vulnerable_layer"), 0),
        "its Layer Sensitivity (bits)": (measured("highest_sensitivity"), 3),
        "shallow minus deep (bits)": (measured("shallow_minus_deep"), 3),
        "accuracy on the probes": (measured("accuracy"), 3),
        "mean log-probability": (measured("mean_log_probability"), 3),
        "held-out loss before training": (lambda r: r.training and r.training.eval_loss_before, 4),
        "held-out loss after training": (lambda r: r.training and r.training.eval_loss_after, 4),
        "tokens per second": (lambda r: r.training and r.training.tokens_per_second, 1),
    }
    names = list(reports)
    rows = []
    for label, (read, digits) in quantities.items():
        values = [read(report) for report in reports.values()]
        if any(value is not None for value in values):
            first = values[0] if comparable else None
            cells = [number(values[0], digits), *(_against(value, first, digits) for value in values[1:])]
            rows.append([label, *cells])
    for label, read in (
        ("trained layers", lambda r: r.plan and f"{len(r.plan.trained_layers)} ({r.plan.strategy})"),
        ("trainable parameters", lambda r: r.plan and amount(r.plan.savings.trainable_parameters)),
    ):
        rows.append([label, *(read(report) or "–" for report in reports.values())])
    return ["quantity", *names], rows


def depth_table(reports: Mapping[str, ReportData], comparable: bool = True) -> Table:
    """Mean Layer Sensitivity in tenths of the depth, the later reports with their difference from the first.

    A difference beyond two standard errors is marked: the errors of a tenth's layers count in full, as the layers are
    perturbed alike. Where one of the two errors is not known, nothing is marked.

    Args:
        reports (`Mapping[str, ReportData]`): The reports by name.
        comparable (`bool`, *optional*, defaults to `True`): Whether differences mean anything; see [`cautions`].

    Returns:
        `tuple[list[str], list[list[str]]]`: The header, and a row a tenth.
    """
    rows = []
    for part in range(_BINS):
        cells = [_tenth(report, part) for report in reports.values()]
        row = [f"{part * 100 // _BINS} to {(part + 1) * 100 // _BINS} %"]
        for place, (mean, error) in enumerate(cells):
            if place == 0 or not comparable:
                row.append(with_error(mean, error))
                continue
            gap = _gap(cells[place], cells[0])
            beyond = ", beyond error" if gap.beyond_error else ""
            row.append(f"{with_error(mean, error)} ({with_error(gap.value, sign=True)}{beyond})")
        rows.append(row)
    return ["tenth of the depth", *reports], rows


def before_and_after(name: str, report: _Report) -> dict[str, _Report]:
    """One training run as two reports to compare.

    Args:
        name (`str`): The run's name.
        report ([`ReportData`]): A report with later diagnoses.

    Returns:
        `dict[str, ReportData]`: The report as it began and as it ended, by name.
    """
    return {f"{name}, before": report, f"{name}, after step {report.latest.step}": after_training(report)}


def suggested(reports: Mapping[str, ReportData]) -> list[str]:
    """What to compare first: a training run with itself, else the first report with another one of its model.

    Args:
        reports (`Mapping[str, ReportData]`): The reports by name; what is looked at comes first.

    Returns:
        `list[str]`: One name or two; fewer where there are no reports.
    """
    first, *others = list(reports) or [""]
    if not first or reports[first].is_repeated:
        return [first] if first else []
    same = [name for name in others if reports[name].model.id == reports[first].model.id]
    return [first, *(same or others)[:1]]


def _against(value: float | None, first: float | None, digits: int) -> str:
    if value is None or first is None:
        return number(value, digits)
    return f"{number(value, digits)} ({value - first:+,.{digits}f})"


def _gap(one: tuple[float, float | None], other: tuple[float, float | None]) -> Measured:
    """One mean minus another that was measured by itself."""
    errors = [error for _, error in (one, other) if error is not None]
    return Measured(one[0] - other[0], math.hypot(*errors) if len(errors) == 2 else None)


def _tenth(report: ReportData, part: int) -> tuple[float, float | None]:
    """Mean and standard error of the layers in a tenth of the depth; of a shallow model, of the layer that spans it."""
    total = report.num_layers
    low, high = part * total // _BINS, -(-(part + 1) * total // _BINS)
    layers = (
        range(low, max(high, low + 1)) if total < _BINS else [i for i in range(total) if i * _BINS // total == part]
    )
    scores = report.first.sensitivity
    return scores.mean_over(layers), fmean(scores.stderr[i] for i in layers) if scores.stderr_known else None
