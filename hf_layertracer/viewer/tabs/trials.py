"""The page of a trial's results: learned against forgotten, all metrics, cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
import plotly.graph_objects as go
from pydantic import BaseModel, Field, ValidationError

from ...errors import LayerTracerError
from ...strict_json import parse_json
from .. import chart_style, html_parts
from ..escaping import for_plotly, plain
from ..hub_places import hub_place
from ..hub_sources import hub_file
from ..report_store import ReportStore
from .base import QUIET, Page, Tab, plot


_FILE = "results.json"
_MOST_BYTES = 8 * 2**20
_MOST_RUNS, _MOST_METRICS = 2_000, 200
_UNTOUCHED = "base"
_COSTS: dict[str, tuple[str, float]] = {
    "trainable_parameters": ("trainable, million", 1e6),
    "tokens_per_second": ("tokens/s", 1),
    "peak_memory_bytes": ("peak MiB", 2**20),
    "optimizer_bytes": ("optimizer MiB", 2**20),
    "flops": ("TFLOP", 1e12),
}


class _Run(BaseModel):
    arm: str = Field(max_length=80)
    seed: int | None
    metrics: dict[str, float] = Field(max_length=_MOST_METRICS)
    cost: dict[str, Any]


class _Objective(BaseModel):
    learn: str = "new/bits_per_byte"
    forget: str = "old/bits_per_byte"


class _Config(BaseModel):
    objective: _Objective | None = None


class _Results(BaseModel):
    """What the page shows of `results.json`."""

    rows: list[_Run] = Field(min_length=1, max_length=_MOST_RUNS)
    config: _Config = _Config()
    machine: str = ""
    missing: list[str] = []
    notes: list[str] = []

    @property
    def arms(self) -> list[str]:
        """The untouched model first, then the arms in the order of the file."""
        names = list(dict.fromkeys(run.arm for run in self.rows))
        return sorted(names, key=lambda name: name != _UNTOUCHED)

    def values(self, arm: str, metric: str) -> list[float]:
        """A metric of an arm, one value a seed."""
        found = [run.metrics.get(metric) for run in self.rows if run.arm == arm]
        return [value for value in found if value is not None and math.isfinite(value)]


def parse_results(content: bytes) -> _Results:
    """Reads the results of a trial, which may be hostile.

    Args:
        content (`bytes`): The content of `results.json`.

    Returns:
        `_Results`: What can be shown.

    Raises:
        LayerTracerError: It is too large, or holds no results.
    """
    if len(content) > _MOST_BYTES:
        raise LayerTracerError(f"This file is too large: results of up to {_MOST_BYTES // 2**20} MiB are opened.")
    try:
        return _Results.model_validate(parse_json(content))
    except (ValidationError, ValueError, RecursionError) as error:
        raise LayerTracerError(
            f"This is not a {_FILE} of `layertracer trials run`, which writes it to its output folder "
            f"({plain(error, 160)})."
        ) from error


def metric_table(results: _Results) -> tuple[list[str], list[list[str]]]:
    """Mean over seeds and, with several, its standard error: a row an arm.

    Args:
        results (`_Results`): The results.

    Returns:
        `tuple`: Headings and rows of text.
    """
    metrics = list(dict.fromkeys(metric for run in results.rows for metric in run.metrics))[:_MOST_METRICS]
    rows = []
    for arm in results.arms:
        values = [results.values(arm, metric) for metric in metrics]
        rows.append([arm, str(sum(run.arm == arm for run in results.rows)), *map(_mean, values)])
    return ["arm", "runs", *metrics], rows


def cost_table(results: _Results) -> tuple[list[str], list[list[str]]]:
    """What each arm costs: mean over its runs.

    Args:
        results (`_Results`): The results.

    Returns:
        `tuple`: Headings and rows of text.
    """
    rows = []
    for arm in results.arms:
        costs = [run.cost for run in results.rows if run.arm == arm]
        if arm != _UNTOUCHED:
            rows.append(
                [arm, *(_cost([cost.get(name) for cost in costs], unit) for name, (_, unit) in _COSTS.items())]
            )
    return ["arm", *(title for title, _ in _COSTS.values())], rows


def trade_off(results: _Results) -> go.Figure | None:
    """Learned against forgotten, a point a run; `None` where the runs do not hold both.

    Args:
        results (`_Results`): The results.

    Returns:
        `go.Figure` or `None`: The figure.
    """
    objective = results.config.objective or _Objective()
    change_of = {metric: _against_base(results, metric) for metric in (objective.learn, objective.forget)}
    learned, forgot = change_of[objective.learn], change_of[objective.forget]
    if learned is None or forgot is None:
        return None
    figure = go.Figure()
    for number, arm in enumerate(results.arms):
        runs = [run.metrics for run in results.rows if run.arm == arm]
        points = [(-forgot(run), learned(run)) for run in runs if objective.learn in run and objective.forget in run]
        if points:
            colour = chart_style.LINES[number % len(chart_style.LINES)]
            symbol = "x" if arm == _UNTOUCHED else "circle"
            x, y = zip(*points, strict=True)
            look = {"color": colour, "size": 11, "symbol": symbol}
            figure.add_scatter(x=x, y=y, mode="markers", name=for_plotly(arm), marker=look)
    title = "Up is more learned, left is less forgotten: a point a run"
    chart_style.dress(figure, title, f"forgotten ({plain(objective.forget)})", f"learned ({plain(objective.learn)})")
    return figure


def _build(page: Page, tab: gr.Tab) -> None:
    with gr.Row():
        repo = gr.Textbox(
            label="A dataset of trials on the Hub",
            info="`layertracer trials run --push` makes one.",
            placeholder="someone/my-trials",
            elem_id="lt-trials-repo",
            max_length=200,
        )
        upload = gr.UploadButton(f"Open {_FILE}", file_types=[".json"], type="binary", elem_id="lt-trials-upload")
    message = gr.HTML(elem_id="lt-trials-message")
    chart = gr.Plot(show_label=False, visible=False, elem_id="lt-trials-chart")
    metrics, costs = gr.HTML(elem_id="lt-trials-metrics"), gr.HTML(elem_id="lt-trials-costs")
    outputs = [message, chart, metrics, costs]
    repo.submit(lambda name: _shown(lambda: _from_hub(page.reports, name)), repo, outputs, **QUIET)
    upload.upload(lambda content: _shown(lambda: content or b""), upload, outputs, **QUIET)


def _from_hub(reports: ReportStore, name: str) -> bytes:
    place = hub_place(name)
    content = hub_file(place, _FILE, reports.token)
    if content is None:
        raise LayerTracerError(f"There is no repository {plain(place)} with a {_FILE} on the Hub that may be read.")
    return content


def _shown(read: Callable[[], bytes]) -> list[Any]:
    try:
        results = parse_results(read())
    except LayerTracerError as error:
        return [html_parts.error(error), gr.update(**plot(None)), "", ""]
    notes = [*results.notes[:20]]
    if results.missing:
        notes.append(f"{len(results.missing)} runs are not finished.")
    caption = (
        "Mean over seeds, ± one standard error from the choice of seeds. Intervals and verdicts are in results.md"
    )
    return [
        "".join(html_parts.note(note) for note in notes),
        gr.update(**plot(trade_off(results))),
        html_parts.table(*metric_table(results), caption),
        html_parts.table(*cost_table(results), f"Cost on {plain(results.machine) or 'an unknown machine'}"),
    ]


def _against_base(results: _Results, metric: str) -> Callable[[dict[str, float]], float] | None:
    """How much better a run is than the untouched model by one metric."""
    base = results.values(_UNTOUCHED, metric)
    sign = -1 if metric.endswith(("bits_per_byte", "perplexity")) else 1
    return None if not base else lambda run: sign * (run[metric] - base[0])


def _mean(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.4f}"
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return f"{mean:.4f} ± {math.sqrt(variance / len(values)):.4f}"


def _cost(values: Sequence[Any], unit: float) -> str:
    numbers = [float(value) for value in values if isinstance(value, int | float) and math.isfinite(value)]
    return f"{sum(numbers) / len(numbers) / unit:.4g}" if numbers else ""


TAB = Tab("Trials", _build, place=6)
