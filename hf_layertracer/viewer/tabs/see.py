"""The page of one report."""

from __future__ import annotations

import io
from typing import Any

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache

from ...errors import LayerTracerError
from ...report import LayerTracerReport
from .. import figures, pages, tables
from ..shelf import Opened, Shelf
from ..text import for_file_name, plain
from .plot import plot, updates


_TASKS_OFFERED = 100
_TASKS_DRAWN = 12
_ALL_TASKS = "all tasks"
_FIRST, _ZERO = {"value": 1}, {"value": 0}
_FORMATS = ("JSON", "CSV", "PNG")
# A link that appears with the file is followed at once.
_FOLLOW = "() => { const link = document.querySelector('#lt-file'); (link.querySelector('a') ?? link).click(); }"


def see_tab(shelf: Shelf, name: gr.Dropdown, opened: gr.State, load: Any) -> None:
    """Builds the page.

    Args:
        shelf ([`Shelf`]): Where reports come from.
        name (`gr.Dropdown`): The chosen report.
        opened (`gr.State`): What the visitor opened.
        load (`Any`): The event of a page that was loaded.
    """
    # The first report comes with the page, so that there is something to read before anything was asked for.
    first = iter(_summary(shelf, name.value, {}))
    header = gr.HTML(**next(first), elem_id="lt-report")
    with gr.Row(elem_classes="lt-downloads"):
        buttons = [gr.Button(f"Download {kind}", size="sm", elem_id=f"lt-get-{kind.lower()}") for kind in _FORMATS]
        file = gr.DownloadButton("file", visible="hidden", elem_id="lt-file")
    tasks = gr.Dropdown(
        **next(first),
        multiselect=True,
        max_choices=_TASKS_DRAWN,
        label="Tasks",
        info="Draw these tasks over the values of all probes.",
        elem_id="lt-tasks",
    )
    with gr.Row():
        sensitivity = gr.Plot(**next(first), show_label=False, elem_id="lt-sensitivity")
        lens = gr.Plot(**next(first), show_label=False, elem_id="lt-lens")
    with gr.Row():
        plan = gr.Plot(**next(first), show_label=False, elem_id="lt-plan")
        history = gr.Plot(**next(first), show_label=False, elem_id="lt-history")
    with gr.Accordion("All values by layer", open=False):
        layers = gr.HTML(**next(first), elem_id="lt-layers")
    gr.Markdown("### Probes")
    with gr.Row():
        task = gr.Dropdown(**next(first), label="Task", min_width=140, elem_id="lt-task")
        order = gr.Dropdown(list(tables.ORDERS), value=tables.ORDERS[0], label="Order", min_width=180)
        text = gr.Textbox(label="Containing", placeholder="text in prompt or answer", max_length=200, min_width=160)
        page = gr.Number(**next(first), label="Page", minimum=1, precision=0, min_width=90, elem_id="lt-page")
    shown = gr.HTML(elem_id="lt-shown")
    probes = gr.Plot(show_label=False, elem_id="lt-probes")
    table = gr.HTML(elem_id="lt-probe-table")
    probe = gr.Number(
        **next(first),
        label="One probe",
        info="Its number, as in the table.",
        minimum=0,
        precision=0,
        elem_id="lt-probe",
    )
    with gr.Row():
        curve = gr.Plot(show_label=False, elem_id="lt-curve")
        readings = gr.HTML(elem_id="lt-readings")

    report = [name, opened]
    summary = [header, tasks, sensitivity, lens, plan, history, layers, task, page, probe]
    selection = [task, text, order, page]
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

    def draw_probes(*values: Any) -> list[Any]:
        return updates(_probes(shelf, *values))

    def draw_probe(*values: Any) -> list[Any]:
        return updates(_probe(shelf, *values))

    changed = name.change(lambda *values: updates(_summary(shelf, *values)), report, summary, **quiet)
    # What is below the fold comes after what is above it.
    for then in (load, changed.then):
        then(draw_probes, [*report, *selection], [shown, probes, table], **quiet)
        then(draw_probe, [*report, probe], [curve, readings], **quiet)
    tasks.input(lambda *values: updates(_curves(shelf, *values)), [*report, tasks], [sensitivity, lens], **quiet)
    gr.on(
        [task.input, text.submit, text.blur, order.input, page.input],
        draw_probes,
        [*report, *selection],
        [shown, probes, table],
        trigger_mode="always_last",
        **quiet,
    )
    probe.input(draw_probe, [*report, probe], [curve, readings], trigger_mode="always_last", **quiet)
    for button, kind in zip(buttons, _FORMATS, strict=True):

        def write(name: str, opened: Opened, kind: str = kind) -> str:
            return save_bytes_to_cache(*_file(shelf.report(name, opened), kind), cache_dir=file.GRADIO_CACHE)

        button.click(write, report, file, **quiet).success(None, None, None, js=_FOLLOW)


def _summary(shelf: Shelf, name: str | None, opened: Opened) -> list[dict[str, Any]]:
    """Of a report: header, tasks, four pictures, the table of layers, and the controls of the probes set back."""
    chosen = {"value": _ALL_TASKS, "choices": [(_ALL_TASKS, _ALL_TASKS)]}
    try:
        report = shelf.report(name, opened)
    except LayerTracerError as error:
        nothing = [plot(None)] * 4
        return [
            {"value": pages.error(error)},
            {"choices": [], "value": []},
            *nothing,
            {"value": ""},
            chosen,
            _FIRST,
            _ZERO,
        ]
    offered = [(plain(task, 40) or "unnamed", task) for task in list(report.probes.tasks)[:_TASKS_OFFERED]]
    chosen["choices"] += offered
    sizes = [layer.size for layer in report.model.layers]
    kinds = [layer.kind for layer in report.model.layers]
    return [
        {"value": pages.report_header(report)},
        {"choices": offered, "value": []},
        plot(figures.sensitivity_figure(report)),
        plot(figures.lens_figure(report)),
        plot(figures.plan_figure(report.plan, kinds, sizes) if report.plan else None),
        plot(figures.history_figure(report) if report.is_repeated else None),
        {"value": pages.table(*tables.layer_table(report), "All values by layer")},
        chosen,
        _FIRST,
        _ZERO,
    ]


def _curves(shelf: Shelf, name: str | None, opened: Opened, tasks: list[str]) -> list[dict[str, Any]]:
    report, drawn = shelf.report(name, opened), tasks[:_TASKS_DRAWN]
    return [plot(figures.sensitivity_figure(report, drawn)), plot(figures.lens_figure(report, drawn))]


def _probes(
    shelf: Shelf,
    name: str | None,
    opened: Opened,
    task: str | None,
    text: str | None,
    order: str,
    page: float | None,
) -> list[dict[str, Any]]:
    """A page of probes: how many there are, their picture and their table."""
    try:
        report = shelf.report(name, opened)
    except LayerTracerError:
        return [{"value": ""}, plot(None), {"value": ""}]
    chosen = tables.choose_probes(report, None if task == _ALL_TASKS else task, text or "", order)
    number = min(max(1, int(page or 1)), tables.pages(chosen))
    here = tables.page_of(chosen, number)
    said = pages.note(f"{len(chosen)} of {report.probes.count} probes; page {number} of {tables.pages(chosen)}")
    table = pages.table(*tables.probe_table(report, here), "Probes on this page")
    return [{"value": said}, plot(figures.probes_figure(report, here)), {"value": table}]


def _probe(shelf: Shelf, name: str | None, opened: Opened, probe: float | None) -> list[dict[str, Any]]:
    """One probe: its curve, and what the lens reads at each layer."""
    try:
        report = shelf.report(name, opened)
    except LayerTracerError:
        return [plot(None), {"value": ""}]
    index = int(probe or 0)
    if not 0 <= index < report.probes.count:
        said = f"There is no probe {index}: they are numbered 0 to {report.probes.count - 1}."
        return [plot(None), {"value": pages.note(said)}]
    if not report.first.lens.per_probe:
        said = "The lens is not valid for this model, so there is nothing to read of a probe."
        return [plot(None), {"value": pages.note(said)}]
    asked = report.probes.items[index]
    prompt = "" if asked.prompt is None else f": {asked.prompt[-80:]} → {asked.target}"
    readings = pages.table(*tables.reading_table(report, index), f"What the lens reads of probe {index}{prompt}")
    return [plot(figures.lens_figure(report, probes=[index])), {"value": readings}]


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
