"""The page of one report."""

from __future__ import annotations

import io
from typing import Any

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache

from ...errors import LayerTracerError
from ...report import LayerTracerReport
from .. import figures, html_parts, lens_figures, tables
from ..escaping import for_file_name, plain
from ..report_store import OpenedReports, ReportStore
from .base import CHECKED_BY_HANDLER, QUIET, Page, Tab, plot, updates


_TASKS_OFFERED = 100
_TASKS_DRAWN = 12
_ALL_TASKS = "all tasks"
_FORMATS = ("JSON", "CSV", "PNG")
# A link that appears with the file is followed at once.
_FOLLOW = "() => { const link = document.querySelector('#lt-file'); (link.querySelector('a') ?? link).click(); }"


def _build(page: Page, tab: gr.Tab) -> None:
    # The first report comes with the page, so that there is something to read before anything was asked for.
    first = _summary(page.reports, page.chosen.value, {})
    title = gr.HTML(**first["title"], elem_id="lt-report")
    with gr.Row():
        sensitivity = gr.Plot(**first["sensitivity"], show_label=False, elem_id="lt-sensitivity")
        lens = gr.Plot(**first["lens"], show_label=False, elem_id="lt-lens")
    facts = gr.HTML(**first["facts"], elem_id="lt-facts")
    with gr.Row(elem_classes="lt-downloads"):
        buttons = [gr.Button(f"Download {kind}", size="sm", elem_id=f"lt-get-{kind.lower()}") for kind in _FORMATS]
        file = gr.DownloadButton("file", visible="hidden", elem_id="lt-file")
    tasks = gr.Dropdown(
        **first["tasks"],
        multiselect=True,
        max_choices=_TASKS_DRAWN,
        label="Tasks",
        info="Draw these tasks over the values of all probes.",
        elem_id="lt-tasks",
        **CHECKED_BY_HANDLER,
    )
    with gr.Row():
        plan = gr.Plot(**first["plan"], show_label=False, elem_id="lt-plan")
        history = gr.Plot(**first["history"], show_label=False, elem_id="lt-history")
    with gr.Accordion("All values by layer", open=False):
        layers = gr.HTML(**first["layers"], elem_id="lt-layers")
    gr.Markdown("### Probes")
    with gr.Row():
        task = gr.Dropdown(**first["task"], label="Task", min_width=140, elem_id="lt-task", **CHECKED_BY_HANDLER)
        order = gr.Dropdown(list(tables.ORDERS), value=tables.ORDERS[0], label="Order", min_width=180)
        text = gr.Textbox(label="Containing", placeholder="text in prompt or answer", max_length=200, min_width=160)
        number = gr.Number(**first["number"], label="Page", minimum=1, precision=0, min_width=90, elem_id="lt-page")
    shown = gr.HTML(elem_id="lt-shown")
    probes = gr.Plot(show_label=False, elem_id="lt-probes")
    table = gr.HTML(elem_id="lt-probe-table")
    probe = gr.Number(
        **first["probe"],
        label="One probe",
        info="Its number, as in the table.",
        minimum=0,
        precision=0,
        elem_id="lt-probe",
    )
    with gr.Row():
        curve = gr.Plot(show_label=False, elem_id="lt-curve")
        readings = gr.HTML(elem_id="lt-readings")

    summary = {
        "title": title,
        "facts": facts,
        "tasks": tasks,
        "sensitivity": sensitivity,
        "lens": lens,
        "plan": plan,
        "history": history,
        "layers": layers,
        "task": task,
        "number": number,
        "probe": probe,
    }
    found = {"shown": shown, "probes": probes, "table": table}
    one = {"curve": curve, "readings": readings}
    report, selection = [page.chosen, page.opened], [task, text, order, number]

    def draw_summary(*values: Any) -> dict[Any, Any]:
        return updates(summary, _summary(page.reports, *values))

    def draw_curves(*values: Any) -> dict[Any, Any]:
        return updates(summary, _curves(page.reports, *values))

    def draw_probes(*values: Any) -> dict[Any, Any]:
        return updates(found, _probes(page.reports, *values))

    def draw_probe(*values: Any) -> dict[Any, Any]:
        return updates(one, _probe(page.reports, *values))

    changed = page.chosen.change(draw_summary, report, list(summary.values()), **QUIET)
    # What is below the fold comes after what is above it.
    for then in (page.loaded, changed.then):
        then(draw_probes, [*report, *selection], list(found.values()), **QUIET)
        then(draw_probe, [*report, probe], list(one.values()), **QUIET)
    tasks.input(draw_curves, [*report, tasks], [sensitivity, lens], **QUIET)
    gr.on(
        [task.input, text.submit, text.blur, order.input, number.input],
        draw_probes,
        [*report, *selection],
        list(found.values()),
        trigger_mode="always_last",
        **QUIET,
    )
    probe.input(draw_probe, [*report, probe], list(one.values()), trigger_mode="always_last", **QUIET)
    for button, kind in zip(buttons, _FORMATS, strict=True):

        def write(name: str, opened: OpenedReports, kind: str = kind) -> str:
            return save_bytes_to_cache(*_file(page.reports.report(name, opened), kind), cache_dir=file.GRADIO_CACHE)

        button.click(write, report, file, **QUIET).success(None, None, None, js=_FOLLOW)


def _summary(reports: ReportStore, name: str | None, opened: OpenedReports) -> dict[str, dict[str, Any]]:
    """Of a report: header, pictures, the table of layers, and the controls set back."""
    controls: dict[str, dict[str, Any]] = {
        "task": {"value": _ALL_TASKS, "choices": [_ALL_TASKS]},
        "number": {"value": 1},
        "probe": {"value": 0},
    }
    try:
        report = reports.report(name, opened)
    except LayerTracerError as error:
        nothing = {name: plot(None) for name in ("sensitivity", "lens", "plan", "history")}
        return {
            "title": {"value": html_parts.error(error)},
            "facts": {"value": ""},
            "tasks": {"choices": [], "value": []},
            **nothing,
            "layers": {"value": ""},
            **controls,
        }
    offered = [(plain(task, 40) or "unnamed", task) for task in list(report.probes.tasks)[:_TASKS_OFFERED]]
    controls["task"]["choices"] = [(_ALL_TASKS, _ALL_TASKS), *offered]
    sizes = [layer.size for layer in report.model.layers]
    kinds = [layer.kind for layer in report.model.layers]
    return {
        "title": {"value": html_parts.report_title(report)},
        "facts": {"value": html_parts.report_facts(report)},
        "tasks": {"choices": offered, "value": []},
        "sensitivity": plot(figures.sensitivity_figure(report)),
        "lens": plot(lens_figures.lens_figure(report)),
        "plan": plot(figures.plan_figure(report.plan, kinds, sizes) if report.plan else None),
        "history": plot(figures.history_figure(report) if report.is_repeated else None),
        "layers": {"value": html_parts.table(*tables.layer_table(report), "All values by layer")},
        **controls,
    }


def _curves(
    reports: ReportStore, name: str | None, opened: OpenedReports, tasks: list[str]
) -> dict[str, dict[str, Any]]:
    try:
        report, drawn = reports.report(name, opened), tasks[:_TASKS_DRAWN]
    except LayerTracerError:
        return {"sensitivity": plot(None), "lens": plot(None)}
    return {
        "sensitivity": plot(figures.sensitivity_figure(report, drawn)),
        "lens": plot(lens_figures.lens_figure(report, drawn)),
    }


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
        return {"shown": {"value": ""}, "probes": plot(None), "table": {"value": ""}}
    chosen = tables.choose_probes(report, None if task == _ALL_TASKS else task, text or "", order)
    number = min(max(1, int(page or 1)), tables.pages(chosen))
    here = tables.page_of(chosen, number)
    said = html_parts.note(f"{len(chosen)} of {report.probes.count} probes; page {number} of {tables.pages(chosen)}")
    table = html_parts.table(*tables.probe_table(report, here), "Probes on this page")
    return {
        "shown": {"value": said},
        "probes": plot(lens_figures.probes_figure(report, here)),
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
    return {"curve": plot(lens_figures.lens_figure(report, probes=[index])), "readings": {"value": readings}}


def _file(report: LayerTracerReport, kind: str) -> tuple[bytes, str]:
    """Content and name of a file to download; the name holds nothing of the report but letters, digits and dashes."""
    stem = f"layertracer-{for_file_name(report.model.name.split('/')[-1])}"
    if kind == "JSON":
        return (report.model_dump_json(indent=1) + "\n").encode(), f"{stem}.json"
    if kind == "CSV":
        return tables.layer_csv(report).encode(), f"{stem}.csv"
    from ...report.figure import draw_report

    picture = io.BytesIO()
    draw_report(report).savefig(picture, format="png")
    return picture.getvalue(), f"{stem}.png"


TAB = Tab("See", _build, place=1)
