"""The page of a hybrid: where each layer comes from, beside what perturbing it does."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ...errors import LayerTracerError
from ...hybrid.card import stack_rows
from ...hybrid.provenance import HybridRecord
from ...records import ReportData
from .. import html_parts
from ..hybrids import hybrid_figure, parse_hybrid, read_hybrid
from ..report_store import OpenedReports, ReportStore
from .base import QUIET, Page, Tab, plot


_HEADER = ["layers", "donor", "its layers", "kind of layer", "new mixer", "verified"]


def _build(page: Page, tab: gr.Tab) -> None:
    message = gr.HTML(elem_id="lt-hybrid-message")
    stack = gr.Plot(
        show_label=False, visible=False, label="The stack of the hybrid by donor and kind", elem_id="lt-hybrid-stack"
    )
    table = gr.HTML(elem_id="lt-hybrid-table")
    upload = gr.UploadButton(
        "Upload a layertracer_hybrid.json", file_types=[".json"], type="binary", size="sm", elem_id="lt-hybrid-upload"
    )
    report, outputs = [page.chosen, page.opened], [message, stack, table]

    def draw(*values: Any) -> list[Any]:
        return _hybrid(page.reports, *values)

    gr.on([tab.select, page.chosen.change], draw, report, outputs, **QUIET)
    upload.upload(lambda *values: _uploaded(page.reports, *values), [upload, *report], outputs, **QUIET)


def _hybrid(reports: ReportStore, name: str | None, opened: OpenedReports) -> list[Any]:
    """The hybrid that the chosen report is of."""
    try:
        report = reports.report(name, opened)
        source = reports.source(name, opened)
        record = read_hybrid(source, reports.token) if source is not None else None
    except LayerTracerError as error:
        return [html_parts.error(error), gr.update(**plot(None)), ""]
    if record is None:
        said = "This model is not a hybrid: there is no layertracer_hybrid.json beside its report. Upload one to look at it."
        return [html_parts.note(said), gr.update(**plot(None)), ""]
    return _shown(record, report)


def _uploaded(reports: ReportStore, content: bytes | None, name: str | None, opened: OpenedReports) -> list[Any]:
    """A hybrid's record on its own, beside the chosen report where that has as many layers."""
    try:
        record = parse_hybrid(content or b"")
    except LayerTracerError as error:
        return [html_parts.error(error), gr.update(**plot(None)), ""]
    try:
        return _shown(record, reports.report(name, opened))
    except LayerTracerError:
        return _shown(record, None)


def _shown(record: HybridRecord, report: ReportData | None) -> list[Any]:
    said = f"{record.architecture} of {len(record.layers)} layers from {', '.join(record.donors)}."
    notes = "".join(html_parts.note(note) for note in [said, *record.notes[:10]])
    rows = html_parts.table(_HEADER, stack_rows(record), "Where each layer comes from")
    return [notes, gr.update(**plot(hybrid_figure(record, report))), rows]


TAB = Tab("Hybrid", _build, place=5)
