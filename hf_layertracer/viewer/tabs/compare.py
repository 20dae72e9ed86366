"""The page of several reports beside each other."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ...errors import LayerTracerError
from .. import compare, pages
from ..shelf import Opened, Shelf
from .plot import plot


_MOST = 6
_STATES = ("first diagnosis", "last diagnosis")


def compare_tab(shelf: Shelf, opened: gr.State, tab: gr.Tab) -> gr.Dropdown:
    """Builds the page.

    Args:
        shelf ([`Shelf`]): Where reports come from.
        opened (`gr.State`): What the visitor opened.
        tab (`gr.Tab`): The tab that it stands in.

    Returns:
        `gr.Dropdown`: The chosen reports, whose choices grow with what the visitor opens.
    """
    names = shelf.names({})
    chosen = gr.Dropdown(
        names,
        value=names[:2],
        multiselect=True,
        max_choices=_MOST,
        label="Reports",
        info="Two or more; differences are against the first.",
        elem_id="lt-compared",
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
        [], label="Before and after", info="A training run whose report has later diagnoses.", visible=False
    )
    change = gr.Plot(show_label=False, visible=False, elem_id="lt-change")
    changes = gr.HTML(elem_id="lt-changes")
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    outputs = [message, sensitivity, lens, differences, depths, run]
    drawn = gr.on(
        [tab.select, chosen.change, state.input],
        lambda *a: _compare(shelf, *a),
        [chosen, state, opened],
        outputs,
        **quiet,
    )
    for choose in (drawn.then, run.input):
        choose(lambda *a: _change(shelf, *a), [run, opened], [change, changes], **quiet)
    return chosen


def _compare(shelf: Shelf, chosen: list[str], state: str, opened: Opened) -> list[Any]:
    try:
        reports = {name: shelf.report(name, opened) for name in chosen[:_MOST]}
        if len(reports) < 2:
            raise LayerTracerError("Choose two reports or more to compare.")
    except LayerTracerError as error:
        nothing = [gr.update(**plot(None))] * 2
        return [pages.error(error), *nothing, "", "", gr.Dropdown([], value=None, visible=False)]
    runs = [name for name, report in reports.items() if report.is_repeated]
    if state == _STATES[1]:
        reports = {name: compare.after_training(report) for name, report in reports.items()}
    return [
        "".join(pages.note(caution) for caution in compare.cautions(reports)),
        gr.update(**plot(compare.sensitivity_curves(reports))),
        gr.update(**plot(compare.lens_curves(reports))),
        pages.table(*compare.difference_table(reports), "Values, and their difference from the first report"),
        pages.table(*compare.depth_table(reports), "Mean Layer Sensitivity by tenths of the depth, in bits"),
        gr.Dropdown(runs, value=runs[0] if runs else None, visible=bool(runs)),
    ]


def _change(shelf: Shelf, name: str | None, opened: Opened) -> list[Any]:
    if name is None:
        return [gr.update(**plot(None)), ""]
    figure, table = compare.before_and_after(shelf.report(name, opened))
    return [gr.update(**plot(figure)), pages.table(*table, f"Before and after the training of {name}")]
