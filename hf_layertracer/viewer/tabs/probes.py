"""The page of a report's probes: many at a glance, and one read at every layer."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ...errors import LayerTracerError
from .. import html_parts, probe_figures, tables
from ..escaping import plain
from ..links import Linked
from ..report_store import OpenedReports, ReportStore
from .base import CHECKED_BY_HANDLER, QUIET, Page, Tab, plot, updates


_TASKS_OFFERED = 100
_ALL_TASKS = "all tasks"
# A click on a row or a cell of the picture chooses the probe.
_PICK = """
const pick = (probe) => trigger("click", {probe: Number(probe)});
element.addEventListener("click", (event) => {
  const button = event.target.closest("tr")?.querySelector("[data-pick]");
  if (button) pick(button.dataset.pick);
});
window.layertracer.onChartClick("lt-probes", (point) => pick(point.y));
"""


def _build(page: Page, tab: gr.Tab) -> None:
    with gr.Row():
        task = gr.Dropdown(
            [_ALL_TASKS], value=_ALL_TASKS, label="Task", min_width=140, elem_id="lt-task", **CHECKED_BY_HANDLER
        )
        order = gr.Dropdown(
            list(tables.ORDERS), value=tables.ORDERS[0], label="Order", min_width=180, filterable=False
        )
        text = gr.Textbox(label="Containing", placeholder="text in prompt or answer", max_length=200, min_width=160)
        number = gr.Number(1, label="Page", minimum=1, precision=0, min_width=90, elem_id="lt-page")
    shown = gr.HTML(elem_id="lt-shown")
    with gr.Row():
        with gr.Column(min_width=320):
            probes = gr.Plot(
                show_label=False, visible=False, label="Lens probability of each probe by layer", elem_id="lt-probes"
            )
            table = gr.HTML(elem_id="lt-probe-table", js_on_load=_PICK)
        with gr.Column(min_width=320):
            probe = gr.Number(
                0,
                label="One probe",
                info="Click a row of the table or a cell of the picture.",
                minimum=0,
                precision=0,
                elem_id="lt-probe",
            )
            curve = gr.Plot(
                show_label=False, visible=False, label="Lens probability of one probe by layer", elem_id="lt-curve"
            )
            readings = gr.HTML(elem_id="lt-readings")

    found = {"task": task, "shown": shown, "probes": probes, "table": table}
    one = {"curve": curve, "readings": readings}
    report, selection = [page.chosen, page.opened], [task, text, order, number]
    page.linked["only"] = Linked(task, _ALL_TASKS, tab="probes")
    page.linked["text"] = Linked(text, "", tab="probes")
    page.linked["order"] = Linked(order, tables.ORDERS[0], tab="probes", choices=tables.ORDERS)
    page.linked["list"] = Linked(number, 1, tab="probes")
    page.linked["probe"] = Linked(probe, 0, tab="probes")

    def draw_probes(*values: Any) -> dict[Any, Any]:
        return updates(found, _probes(page.reports, *values))

    def draw_probe(*values: Any) -> dict[Any, Any]:
        return updates(one, _probe(page.reports, *values))

    def pick(name: str | None, opened: OpenedReports, clicked: gr.EventData) -> dict[Any, Any]:
        index = clicked.probe
        return {probe: index, **draw_probe(name, opened, index)}

    def reset(name: str | None, view: dict[str, Any]) -> list[Any]:
        """The usual choice for another report, but for what the link says that opened it."""
        said = view if view.get("report") == name else {}
        return [
            said.get(control, page.linked[control].usual) for control in ("only", "text", "order", "list", "probe")
        ]

    drawing = ([*report, *selection], list(found.values()))
    reading = ([*report, probe], list(one.values()))
    changed = page.chosen.change(reset, [page.chosen, page.view], [task, text, order, number, probe], **QUIET)
    changed = changed.then(draw_probes, *drawing, **QUIET)
    changed.then(draw_probe, *reading, **QUIET)
    page.on_load.extend([(draw_probes, *drawing), (draw_probe, *reading)])
    gr.on(
        [task.input, text.submit, text.blur, order.input, number.input],
        draw_probes,
        *drawing,
        **QUIET,
    )
    probe.input(draw_probe, *reading, **QUIET)
    table.click(pick, report, [probe, *one.values()], **QUIET)


def _probes(
    reports: ReportStore,
    name: str | None,
    opened: OpenedReports,
    task: str | None,
    text: str | None,
    order: str,
    page: float | None,
) -> dict[str, dict[str, Any]]:
    """A page of probes: how many there are, their picture and their table."""
    try:
        report = reports.report(name, opened)
    except LayerTracerError:
        return {"task": {}, "shown": {"value": ""}, "probes": plot(None), "table": {"value": ""}}
    offered = [(plain(task, 40) or "unnamed", task) for task in list(report.probes.tasks)[:_TASKS_OFFERED]]
    chosen = tables.choose_probes(report, None if task == _ALL_TASKS else task, text or "", order)
    number = min(max(1, int(page or 1)), tables.pages(chosen))
    here = tables.page_of(chosen, number)
    said = html_parts.note(f"{len(chosen)} of {report.probes.count} probes; page {number} of {tables.pages(chosen)}")
    table = html_parts.table(*tables.probe_table(report, here), "Probes on this page", pick="Read probe")
    return {
        "task": {"choices": [(_ALL_TASKS, _ALL_TASKS), *offered]},
        "shown": {"value": said},
        "probes": plot(probe_figures.probes_figure(report, here)),
        "table": {"value": table},
    }


def _probe(
    reports: ReportStore, name: str | None, opened: OpenedReports, probe: float | None
) -> dict[str, dict[str, Any]]:
    """One probe: its curve, and what the lens reads at each layer."""
    try:
        report = reports.report(name, opened)
    except LayerTracerError:
        return {"curve": plot(None), "readings": {"value": ""}}
    index = int(probe or 0)
    if not 0 <= index < report.probes.count:
        said = f"There is no probe {index}: they are numbered 0 to {report.probes.count - 1}."
        return {"curve": plot(None), "readings": {"value": html_parts.note(said)}}
    if not report.first.lens.per_probe:
        said = "The lens is not valid for this model, so there is nothing to read of a probe."
        return {"curve": plot(None), "readings": {"value": html_parts.note(said)}}
    asked = report.probes.items[index]
    prompt = "" if asked.prompt is None else f": {asked.prompt[-80:]} → {asked.target}"
    readings = html_parts.table(*tables.reading_table(report, index), f"What the lens reads of probe {index}{prompt}")
    return {"curve": plot(probe_figures.probe_figure(report, index)), "readings": {"value": readings}}


TAB = Tab("Probes", _build, place=2)
