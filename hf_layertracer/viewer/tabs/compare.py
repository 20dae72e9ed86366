"""The page of several reports beside each other."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ...errors import LayerTracerError
from .. import compare, html_parts
from ..links import Linked
from ..report_store import OpenedReports, ReportStore
from .base import CHECKED_BY_HANDLER, QUIET, Page, Tab, plot


_MOST = 6
_STATES = ("first diagnosis", "last diagnosis")


def _build(page: Page, tab: gr.Tab) -> None:
    names = page.reports.names({})
    chosen = gr.Dropdown(
        names,
        value=names[:2],
        multiselect=True,
        max_choices=_MOST,
        label="Reports",
        info="Two or more; differences are against the first.",
        elem_id="lt-compared",
        **CHECKED_BY_HANDLER,
    )
    state = gr.Radio(
        list(_STATES),
        value=_STATES[0],
        label="Of training runs, compare the",
        info="Reports without later diagnoses stay as they are.",
        elem_id="lt-state",
    )
    message = gr.HTML(elem_id="lt-cautions")
    with gr.Row():
        sensitivity = gr.Plot(show_label=False, elem_id="lt-compare-sensitivity")
        lens = gr.Plot(show_label=False, elem_id="lt-compare-lens")
    differences = gr.HTML(elem_id="lt-differences")
    depths = gr.HTML(elem_id="lt-depths")
    run = gr.Dropdown(
        [],
        label="Before and after",
        info="A training run whose report has later diagnoses.",
        visible=False,
        **CHECKED_BY_HANDLER,
    )
    change = gr.Plot(show_label=False, visible=False, elem_id="lt-change")
    changes = gr.HTML(elem_id="lt-changes")
    outputs = [message, sensitivity, lens, differences, depths, run]
    drawn = gr.on(
        [tab.select, chosen.change, state.input],
        lambda *a: _compare(page.reports, *a),
        [chosen, state, page.opened],
        outputs,
        **QUIET,
    )
    for choose in (drawn.then, run.input):
        choose(lambda *a: _change(page.reports, *a), [run, page.opened], [change, changes], **QUIET)
    page.linked["compare"] = Linked(chosen, names[:2], tab="compare")
    page.linked["state"] = Linked(state, _STATES[0], tab="compare", choices=_STATES)
    page.on_load.append((lambda *a: _compare(page.reports, *a), [chosen, state, page.opened], outputs))
    page.chosen.change(lambda *a: _offer(page.reports, *a), [chosen, page.opened], chosen, **QUIET)


def _offer(reports: ReportStore, chosen: list[str], opened: OpenedReports) -> Any:
    """The choices grow with what the visitor opens; what had to make room for it is no longer chosen."""
    names = reports.names(opened)
    return gr.Dropdown(names, value=[name for name in chosen if name in names])


def _compare(reports: ReportStore, chosen: list[str], state: str, opened: OpenedReports) -> list[Any]:
    try:
        compared = {name: reports.report(name, opened) for name in chosen[:_MOST]}
        if len(compared) < 2:
            raise LayerTracerError("Choose two reports or more to compare.")
    except LayerTracerError as error:
        nothing = [gr.update(**plot(None))] * 2
        return [html_parts.error(error), *nothing, "", "", gr.Dropdown([], value=None, visible=False)]
    runs = [name for name, report in compared.items() if report.is_repeated]
    if state == _STATES[1]:
        compared = {name: compare.after_training(report) for name, report in compared.items()}
    return [
        "".join(html_parts.note(caution) for caution in compare.cautions(compared)),
        gr.update(**plot(compare.sensitivity_curves(compared))),
        gr.update(**plot(compare.lens_curves(compared))),
        html_parts.table(*compare.difference_table(compared), "Values, and their difference from the first report"),
        html_parts.table(*compare.depth_table(compared), "Mean Layer Sensitivity by tenths of the depth, in bits"),
        gr.Dropdown(runs, value=runs[0] if runs else None, visible=bool(runs)),
    ]


def _change(reports: ReportStore, name: str | None, opened: OpenedReports) -> list[Any]:
    if name is None:
        return [gr.update(**plot(None)), ""]
    try:
        report = reports.report(name, opened)
    except LayerTracerError as error:
        return [gr.update(**plot(None)), html_parts.error(error)]
    if not report.is_repeated:
        return [gr.update(**plot(None)), ""]
    figure, table = compare.before_and_after(report)
    return [gr.update(**plot(figure)), html_parts.table(*table, f"Before and after the training of {name}")]


TAB = Tab("Compare", _build, place=3)
