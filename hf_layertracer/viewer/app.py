"""The viewer: one Gradio page with a tab for each thing to do with a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from ..errors import LayerTracerError
from ..report import LayerTracerReport
from . import html_parts
from .report_sources import MAX_BYTES, find_reports, hub_report, parse_report, search_hub
from .report_store import OpenedReports, ReportStore
from .tabs import Page, offered_tabs
from .tabs.base import CHECKED_BY_HANDLER, QUIET
from .upload_limit import UploadLimit


_SESSIONS = 200
_WAITING = 1_000
_HOUR = 3600


def build_app(sources: Sequence[str | Path]) -> gr.Blocks:
    """Builds the page.

    Args:
        sources (`Sequence[str]`): The reports to start with: files, folders or ids of repositories on the Hub.

    Returns:
        `gr.Blocks`: The page, for [`serve`].

    Raises:
        ReportNotFoundError: A folder holds no report, or a source is neither a path nor an id.
    """
    store = ReportStore(find_reports(sources))
    names = store.names({})
    with gr.Blocks(title="LayerTracer viewer", analytics_enabled=False, delete_cache=(_HOUR, _HOUR)) as app:
        opened = gr.State({}, time_to_live=_HOUR)
        with gr.Row(elem_id="lt-top"):
            gr.HTML('<h1 title="What each layer of a language model does">LayerTracer</h1>', min_width=120)
            chosen = gr.Dropdown(
                names,
                value=names[0] if names else None,
                label="Report",
                container=False,
                scale=3,
                elem_id="lt-name",
                **CHECKED_BY_HANDLER,
            )
            upload = gr.UploadButton(
                "Upload a report", file_types=[".json"], type="binary", min_width=140, elem_id="lt-upload"
            )
        with gr.Accordion("Open from the Hub", open=not names, elem_id="lt-open-hub"), gr.Row():
            asked = gr.Textbox(
                label="Repository, or words to search for",
                placeholder="user/name",
                max_length=200,
                scale=2,
                elem_id="lt-hub",
            )
            found = gr.Dropdown(
                [],
                label="Found",
                info="Public repositories tagged layertracer.",
                scale=2,
                elem_id="lt-found",
                **CHECKED_BY_HANDLER,
            )
            search = gr.Button("Search", elem_id="lt-search")
            fetch = gr.Button("Open", variant="primary", elem_id="lt-open")
        message = gr.HTML(elem_id="lt-message")
        page = Page(store, chosen, opened, loaded=app.load)
        with gr.Tabs():
            for name, tab in offered_tabs().items():
                with gr.Tab(tab.title, id=name) as place:
                    tab.build(page, place)

        def show(report: LayerTracerReport, label: str, opened: OpenedReports) -> dict[Any, Any]:
            shown = page.show(label, report, opened)
            return {message: html_parts.note(f"Opened {next(iter(shown[page.opened]))}."), **shown}

        def open_upload(content: bytes | None, opened: OpenedReports) -> dict[Any, Any]:
            try:
                report = parse_report(content or b"", "The uploaded file")
            except LayerTracerError as error:
                return {message: html_parts.error(error)}
            return show(report, report.model.name, opened)

        def open_from_hub(place: str | None, opened: OpenedReports) -> dict[Any, Any]:
            try:
                report = hub_report(place or "")
            except LayerTracerError as error:
                return {message: html_parts.error(error)}
            return show(report, place or report.model.name, opened)

        def search_for(text: str) -> dict[Any, Any]:
            try:
                repos = search_hub(text)
            except LayerTracerError as error:
                return {message: html_parts.error(error)}
            said = (
                f"Found {len(repos)}."
                if repos
                else "Found none: no public repository of that name is tagged layertracer."
            )
            return {message: html_parts.note(said), found: gr.Dropdown(repos, value=None)}

        shown = [message, chosen, opened]
        private: dict[str, Any] = {"api_visibility": QUIET["api_visibility"]}
        upload.upload(open_upload, [upload, opened], shown, **private)
        gr.on([fetch.click, asked.submit], open_from_hub, [asked, opened], shown, **private)
        found.input(open_from_hub, [found, opened], shown, **private)
        search.click(search_for, asked, [message, found], **private)
    # Nothing here takes long but a diagnosis, which has its own limit: a class that opens the page at once is served.
    return app.queue(max_size=_WAITING, default_concurrency_limit=8)


def serve(app: gr.Blocks, **options: Any) -> Any:
    """Starts the page.

    Args:
        app (`gr.Blocks`): From [`build_app`].
        options: Of `gr.Blocks.launch`, such as `server_port`.

    Returns:
        `Any`: What `launch` returns.
    """
    # Fonts of the system: the page asks no other server for anything.
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    return app.launch(
        theme=theme,
        css_paths=[Path(__file__).with_name("style.css")],
        max_file_size=MAX_BYTES,
        state_session_capacity=_SESSIONS,
        footer_links=[],
        ssr_mode=False,
        app_kwargs={"middleware": [Middleware(UploadLimit)]},
        **options,
    )
