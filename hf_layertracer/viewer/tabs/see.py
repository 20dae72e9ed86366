"""The page of one report."""

from __future__ import annotations

import io
from typing import Any

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache

from ...errors import LayerTracerError
from ...report import LayerTracerReport
from .. import describe, html_parts, plan_figures, tables
from ..escaping import for_file_name, plain
from ..layer_figure import layer_figure
from ..links import Linked
from ..report_store import OpenedReports, ReportStore
from .base import CHECKED_BY_HANDLER, QUIET, Page, Tab, plot, updates


_TASKS_OFFERED = 100
_TASKS_DRAWN = 12
_FORMATS = ("JSON", "CSV", "PNG")
# A link that appears with the file is followed at once.
_FOLLOW = "() => { const link = document.querySelector('#lt-file'); (link.querySelector('a') ?? link).click(); }"


def _build(page: Page, tab: gr.Tab) -> None:
    # The first report comes with the page, so that there is something to read before anything was asked for.
    first = _summary(page.reports, page.chosen.value, {}, {})
    title = gr.HTML(**first["title"], elem_id="lt-report")
    charts = gr.Plot(
        **first["charts"],
        show_label=False,
        label="Layer Sensitivity and lens probability by layer",
        elem_id="lt-charts",
    )
    described = gr.HTML(**first["described"], elem_id="lt-charts-described")
    with gr.Row(elem_id="lt-beside"):
        tasks = gr.Dropdown(
            **first["tasks"],
            multiselect=True,
            max_choices=_TASKS_DRAWN,
            label="Tasks",
            info="Draw these tasks over the values of all probes.",
            scale=2,
            elem_id="lt-tasks",
            **CHECKED_BY_HANDLER,
        )
        with gr.Row(elem_classes="lt-downloads"):
            buttons = [
                gr.Button(f"Download {kind}", size="sm", min_width=110, elem_id=f"lt-get-{kind.lower()}")
                for kind in _FORMATS
            ]
            file = gr.DownloadButton("file", visible="hidden", elem_id="lt-file")
    facts = gr.HTML(**first["facts"], elem_id="lt-facts")
    with gr.Row():
        plan = gr.Plot(**first["plan"], show_label=False, label="The plan, layer by layer", elem_id="lt-plan")
        history = gr.Plot(
            **first["history"],
            show_label=False,
            label="Layer Sensitivity and Task Particle during training",
            elem_id="lt-history",
        )
    with gr.Accordion("All values by layer", open=False):
        layers = gr.HTML(**first["layers"], elem_id="lt-layers")

    summary = {
        "title": title,
        "charts": charts,
        "described": described,
        "tasks": tasks,
        "facts": facts,
        "plan": plan,
        "history": history,
        "layers": layers,
    }
    page.linked["task"] = Linked(tasks, [], tab="see")
    report = [page.chosen, page.opened]

    def draw_summary(*values: Any) -> dict[Any, Any]:
        return updates(summary, _summary(page.reports, *values))

    def draw_charts(name: str | None, opened: OpenedReports, drawn: list[str]) -> Any:
        return gr.update(**_charts(page.reports, name, opened, drawn))

    page.chosen.change(draw_summary, [*report, page.view], list(summary.values()), **QUIET)
    tasks.input(draw_charts, [*report, tasks], charts, **QUIET)
    page.on_load.append((lambda *v: draw_charts(*v) if v[-1] else gr.skip(), [*report, tasks], [charts]))
    for button, kind in zip(buttons, _FORMATS, strict=True):

        def write(name: str, opened: OpenedReports, kind: str = kind) -> str:
            return save_bytes_to_cache(*_file(page.reports.report(name, opened), kind), cache_dir=file.GRADIO_CACHE)

        button.click(write, report, file, **QUIET).success(None, None, None, js=_FOLLOW)


def _summary(
    reports: ReportStore, name: str | None, opened: OpenedReports, view: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Of a report: header, pictures, the table of layers and the tasks, of which the link that opened it may draw some."""
    try:
        report = reports.report(name, opened)
    except LayerTracerError as error:
        return {
            "title": {"value": html_parts.error(error)},
            **{empty: {"value": ""} for empty in ("described", "facts", "layers")},
            **{name: plot(None) for name in ("charts", "plan", "history")},
            "tasks": {"choices": [], "value": []},
        }
    offered = [(plain(task, 40) or "unnamed", task) for task in list(report.probes.tasks)[:_TASKS_OFFERED]]
    linked = view.get("task", []) if view.get("report") == name else []
    drawn = [task for task in linked[:_TASKS_DRAWN] if task in report.probes.tasks]
    return {
        "title": {"value": html_parts.report_title(report)},
        "charts": plot(layer_figure(report, drawn)),
        "described": {"value": html_parts.description(describe.layers(report))},
        "tasks": {"choices": offered, "value": drawn},
        "facts": {"value": html_parts.report_facts(report)},
        "plan": plot(plan_figures.plan_figure(report.model, report.plan) if report.plan else None),
        "history": plot(plan_figures.history_figure(report) if report.is_repeated else None),
        "layers": {"value": html_parts.table(*tables.layer_table(report), "All values by layer")},
    }


def _charts(reports: ReportStore, name: str | None, opened: OpenedReports, tasks: list[str]) -> dict[str, Any]:
    try:
        return plot(layer_figure(reports.report(name, opened), tasks[:_TASKS_DRAWN]))
    except LayerTracerError:
        return plot(None)


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
