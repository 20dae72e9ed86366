"""The viewer: one Gradio page with a tab for each thing to do with a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from ..errors import LayerTracerError
from ..report import LayerTracerReport
from . import pages
from .live import is_offered
from .reading import MAX_BYTES, find_reports, hub_report, parse_report, search_hub
from .shelf import Opened, Shelf
from .tabs.allocate import allocate_tab
from .tabs.compare import compare_tab
from .tabs.live import live_tab
from .tabs.see import see_tab


_SESSIONS = 200
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
    shelf = Shelf(find_reports(sources))
    names = shelf.names({})
    with gr.Blocks(title="LayerTracer viewer", analytics_enabled=False, delete_cache=(_HOUR, _HOUR)) as app:
        opened = gr.State({}, time_to_live=_HOUR)
        gr.Markdown(
            "# LayerTracer viewer\nWhat each layer of a language model does, and which layers are worth training."
        )
        with gr.Row():
            name = gr.Dropdown(names, value=names[0] if names else None, label="Report", scale=3, elem_id="lt-name")
            upload = gr.UploadButton("Upload a report", file_types=[".json"], type="binary", elem_id="lt-upload")
        with gr.Accordion("Open from the Hub", open=not names, elem_id="lt-open-hub"), gr.Row():
            asked = gr.Textbox(
                label="Repository, or words to search for",
                placeholder="user/name",
                max_length=200,
                scale=2,
                elem_id="lt-hub",
            )
            found = gr.Dropdown(
                [], label="Found", info="Public repositories tagged layertracer.", scale=2, elem_id="lt-found"
            )
            search = gr.Button("Search", elem_id="lt-search")
            fetch = gr.Button("Open", variant="primary", elem_id="lt-open")
        message = gr.HTML(elem_id="lt-message")
        with gr.Tabs():
            with gr.Tab("See", id="see"):
                see_tab(shelf, name, opened, app.load)
            with gr.Tab("Compare", id="compare") as tab:
                compared = compare_tab(shelf, opened, tab)
            with gr.Tab("Try an allocation", id="try") as tab:
                allocate_tab(shelf, name, opened, tab)
            if is_offered():
                with gr.Tab("Diagnose", id="diagnose"):
                    live_tab(shelf, name, opened, compared)

        def add(label: str | None, report: LayerTracerReport, opened: Opened) -> list[Any]:
            label, opened = shelf.add(label or report.model.name, report, opened)
            names = shelf.names(opened)
            return [pages.note(f"Opened {label}."), gr.Dropdown(names, value=label), gr.Dropdown(names), opened]

        def refuse(error: LayerTracerError) -> list[Any]:
            return [pages.error(error), gr.skip(), gr.skip(), gr.skip()]

        def add_upload(content: bytes | None, opened: Opened) -> list[Any]:
            try:
                return add(None, parse_report(content or b"", "The uploaded file"), opened)
            except LayerTracerError as error:
                return refuse(error)

        def add_from_hub(place: str | None, opened: Opened) -> list[Any]:
            try:
                return add(place, hub_report(place or ""), opened)
            except LayerTracerError as error:
                return refuse(error)

        def search_for(text: str) -> list[Any]:
            try:
                repos = search_hub(text)
            except LayerTracerError as error:
                return [pages.error(error), gr.skip()]
            said = (
                f"Found {len(repos)}."
                if repos
                else "Found none: no public repository of that name is tagged layertracer."
            )
            return [pages.note(said), gr.Dropdown(repos, value=None)]

        private: dict[str, Any] = {"api_visibility": "private"}
        upload.upload(add_upload, [upload, opened], [message, name, compared, opened], **private)
        gr.on([fetch.click, asked.submit], add_from_hub, [asked, opened], [message, name, compared, opened], **private)
        found.input(add_from_hub, [found, opened], [message, name, compared, opened], **private)
        search.click(search_for, asked, [message, found], **private)
    return app.queue(max_size=64, default_concurrency_limit=4)


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
        **options,
    )
