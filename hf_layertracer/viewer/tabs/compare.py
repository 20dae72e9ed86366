"""The page of several reports beside each other."""

from __future__ import annotations

import contextlib
from typing import Any

import gradio as gr

from ...errors import LayerTracerError
from .. import compare, describe, html_parts
from ..links import Linked
from ..report_store import OpenedReports, ReportStore
from .base import CHECKED_BY_HANDLER, QUIET, Page, Tab, plot


_MOST = 6
# Reading reports to find what to compare takes time: this many are looked at.
_LOOKED_AT = 8
_STATES = ("first diagnosis", "last diagnosis")


def _build(page: Page, tab: gr.Tab) -> None:
    names = page.reports.names({})
    first = _suggested(page.reports, page.chosen.value, {})
    # What was suggested last: what the visitor chose themselves stays when they look at another report.
    before = gr.State(first)
    chosen = gr.Dropdown(
        names,
        value=first,
        multiselect=True,
        max_choices=_MOST,
        label="Reports",
        info="One training run: before and after. Several reports: each against the first.",
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
        sensitivity = gr.Plot(
            show_label=False,
            visible=False,
            label="Layer Sensitivity on relative depth",
            elem_id="lt-compare-sensitivity",
        )
        lens = gr.Plot(
            show_label=False, visible=False, label="Lens probability on relative depth", elem_id="lt-compare-lens"
        )
    described = gr.HTML(elem_id="lt-compare-described")
    differences = gr.HTML(elem_id="lt-differences")
    depths = gr.HTML(elem_id="lt-depths")
    page.linked["compare"] = Linked(chosen, [], tab="compare")
    page.linked["state"] = Linked(state, _STATES[0], tab="compare", choices=_STATES)
    inputs, outputs = [chosen, state, page.opened], [message, sensitivity, lens, described, differences, depths, state]

    def draw(*values: Any) -> list[Any]:
        return _compare(page.reports, *values)

    gr.on([tab.select, chosen.change, state.input], draw, inputs, outputs, **QUIET)
    page.on_load.append((draw, inputs, outputs))
    page.chosen.change(
        lambda *values: _offer(page.reports, *values),
        [page.chosen, chosen, before, page.opened],
        [chosen, before],
        **QUIET,
    )


def _suggested(reports: ReportStore, name: str | None, opened: OpenedReports) -> list[str]:
    """What to compare with a report, of those that can be read."""
    found = {}
    for other in dict.fromkeys([*([name] if name else []), *reports.at_hand(opened)[:_LOOKED_AT]]):
        with contextlib.suppress(LayerTracerError):
            found[other] = reports.report(other, opened)
            if len(found) == 1 and found[other].is_repeated:
                break
    return compare.suggested(found)


def _offer(
    reports: ReportStore, name: str | None, chosen: list[str], before: list[str], opened: OpenedReports
) -> list[Any]:
    """The choices grow with what the visitor opens; what had to make room for it is no longer chosen."""
    names = reports.names(opened)
    now = _suggested(reports, name, opened) if chosen == before else [other for other in chosen if other in names]
    # A value that stays is not sent: the visitor may have chosen something else by the time it arrives.
    offered = gr.Dropdown(names) if now == chosen else gr.Dropdown(names, value=now)
    return [offered, now if chosen == before else before]


def _compare(reports: ReportStore, chosen: list[str], state: str, opened: OpenedReports) -> list[Any]:
    try:
        compared = {name: reports.report(name, opened) for name in chosen[:_MOST]}
        runs = [name for name, report in compared.items() if report.is_repeated]
        if len(compared) == len(runs) == 1:
            compared = compare.before_and_after(runs[0], compared[runs[0]])
        elif state == _STATES[1]:
            compared = {name: compare.after_training(report) for name, report in compared.items()}
        if len(compared) < 2:
            raise LayerTracerError("Choose a training run that was diagnosed again, or two reports or more.")
    except LayerTracerError as error:
        nothing = [gr.update(**plot(None))] * 2
        return [html_parts.error(error), *nothing, "", "", "", gr.update(visible=False)]
    cautions = compare.cautions(compared)
    return [
        "".join(html_parts.note(caution) for caution in cautions),
        gr.update(**plot(compare.sensitivity_curves(compared))),
        gr.update(**plot(compare.lens_curves(compared))),
        html_parts.description(describe.curves(compared)),
        html_parts.table(*compare.difference_table(compared, not cautions), "Values"),
        html_parts.table(
            *compare.depth_table(compared, not cautions), "Mean Layer Sensitivity by tenths of the depth"
        ),
        gr.update(visible=bool(runs) and len(chosen) > 1),
    ]


TAB = Tab("Compare", _build, place=3)
