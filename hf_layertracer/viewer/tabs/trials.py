"""The page of a trial's results: the picture and the tables that `results.json` holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import gradio as gr
import plotly.graph_objects as go
from pydantic import BaseModel, Field, ValidationError

from ...errors import LayerTracerError
from ...report.palette import GREY
from ...strict_json import parse_json
from ...trials.trade_off import Change, TradeOff
from .. import chart_style, html_parts
from ..escaping import for_plotly, plain
from ..hub_places import hub_place
from ..hub_sources import hub_file
from ..report_store import ReportStore
from .base import QUIET, Page, Tab, plot


_FILE = "results.json"
_MOST_BYTES = 8 * 2**20
_MOST_TABLES, _MOST_ROWS, _MOST_COLUMNS = 8, 500, 800
_Row = Annotated[list[str], Field(max_length=_MOST_COLUMNS)]


class _Table(BaseModel):
    title: str
    columns: _Row
    rows: list[_Row] = Field(max_length=_MOST_ROWS)
    caption: str
    grey: list[int] = Field(max_length=_MOST_COLUMNS)


class _TradeOff(TradeOff):
    points: dict[str, tuple[Change, Change]] = Field(min_length=1, max_length=_MOST_ROWS)


class _Results(BaseModel):
    """What the page shows of `results.json`."""

    tables: list[_Table] = Field(default=[], max_length=_MOST_TABLES)
    rows: list[dict[str, Any]] = Field(min_length=1)
    trade_off: _TradeOff | None = None
    missing: list[str] = []
    notes: list[str] = []


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
        results = _Results.model_validate(parse_json(content))
    except (ValidationError, ValueError, RecursionError) as error:
        raise LayerTracerError(
            f"This is not a {_FILE} of `layertracer trials run`, which writes it to its output folder "
            f"({plain(error, 160)})."
        ) from error
    # Without the items, neither intervals nor what is at chance can be made up for.
    if not results.tables:
        raise LayerTracerError(
            f"This {_FILE} is of an earlier version and holds no tables with chance, n and intervals: "
            "TrialsResult.load(folder).save(folder) writes it anew in the trial's folder, without training."
        )
    return results


def trade_off(shown: TradeOff) -> go.Figure:
    """Learned against forgotten: a point an arm with its 95 % intervals, grey where the untouched model is at chance.

    Args:
        shown ([`TradeOff`]): What the file holds of it.

    Returns:
        `go.Figure`: The figure.
    """
    figure = go.Figure()
    look = {"color": GREY, "size": 11, "symbol": "x"}
    figure.add_scatter(x=[0], y=[0], mode="markers", name=for_plotly("untouched model"), marker=look)
    for number, (arm, (learned, forgotten)) in enumerate(shown.points.items()):
        colour = GREY if shown.at_chance else chart_style.LINES[number % len(chart_style.LINES)]
        figure.add_scatter(
            x=[forgotten.value],
            y=[learned.value],
            error_x=_bars(forgotten),
            error_y=_bars(learned),
            mode="markers",
            name=for_plotly(arm),
            marker={"color": colour, "size": 11},
        )
    forget, learn = plain(shown.forget), plain(shown.learn)
    chart_style.dress(figure, plain(shown.title, 600), f"forgotten ({forget})", f"learned ({learn})")
    return figure


def _bars(change: Change) -> dict[str, Any]:
    if change.low is None or change.high is None:
        return {"visible": False}
    return {
        "type": "data",
        "symmetric": False,
        "array": [change.high - change.value],
        "arrayminus": [change.value - change.low],
    }


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
    outputs = [message, chart, gr.HTML(elem_id="lt-trials-tables")]
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
        return [html_parts.error(error), gr.update(**plot(None)), ""]
    notes = [*results.notes[:20]]
    if results.missing:
        notes.append(f"{len(results.missing)} runs are not finished.")
    tables = [
        html_parts.table(table.columns, table.rows, table.title, reading=table.caption, grey=table.grey)
        for table in results.tables
    ]
    picture = None if results.trade_off is None else trade_off(results.trade_off)
    return ["".join(html_parts.note(note) for note in notes), gr.update(**plot(picture)), "".join(tables)]


TAB = Tab("Trials", _build, place=6)
