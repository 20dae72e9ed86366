"""The viewer: one Gradio page with a tab for each thing to do with a report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from ..errors import LayerTracerError
from .links import Linked, follow_script
from .opening import Opening, opener_of
from .report_sources import MAX_BYTES, find_reports
from .report_store import ReportStore
from .tabs import Page, offered_tabs
from .tabs.base import CHECKED_BY_HANDLER, QUIET
from .upload_limit import UploadLimit


_SESSIONS = 200
_WAITING = 1_000
_HOUR = 3600
# Gradio's own hints and accents are too pale to read: at least 4.5:1 here, light and dark.
_COLOURS = {
    "body_text_color_subdued": "*neutral_600",
    "body_text_color_subdued_dark": "*neutral_300",
    "block_info_text_color": "*neutral_600",
    "block_info_text_color_dark": "*neutral_300",
    "input_placeholder_color": "*neutral_600",
    "input_placeholder_color_dark": "*neutral_300",
    "color_accent": "*primary_700",
    "button_primary_background_fill": "*primary_700",
    "button_primary_background_fill_dark": "*primary_700",
    "button_primary_background_fill_hover": "*primary_800",
    "button_primary_background_fill_hover_dark": "*primary_800",
}


def build_app(sources: Sequence[str | Path] | ReportStore, *, token_from_login: bool = False) -> gr.Blocks:
    """Builds the page.

    Args:
        sources (`Sequence[str]` or [`ReportStore`]):
            The reports to start with: files, folders or ids of repositories on the Hub, or a store that has found them.
        token_from_login (`bool`, *optional*, defaults to `False`):
            Read the Hub with your login, private repositories included. For a page that only you can reach.

    Returns:
        `gr.Blocks`: The page, for [`serve`].

    Raises:
        ReportNotFoundError: A folder holds no report, or a source is neither a path nor an id.
        LayerTracerError: A Space asks for `token_from_login`, which would show private reports to its visitors.
    """
    if token_from_login and "SPACE_ID" in os.environ:
        raise LayerTracerError("A Space never uses its owner's login: its visitors would see private reports.")
    store = sources if isinstance(sources, ReportStore) else ReportStore(find_reports(sources), token=token_from_login)
    names = store.names({})
    with gr.Blocks(title="LayerTracer viewer", analytics_enabled=False, delete_cache=(_HOUR, _HOUR)) as app:
        opened, view = gr.State({}, time_to_live=_HOUR), gr.State({}, time_to_live=_HOUR)
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
            upload = gr.UploadButton("Upload", file_types=[".json"], type="binary", min_width=80, elem_id="lt-upload")
        opener = opener_of(open=not names, private=token_from_login)
        message = gr.HTML(elem_id="lt-message")
        page = Page(store, chosen, opened, view)
        page.linked["report"] = Linked(chosen, "")
        with gr.Tabs() as tabs:
            places = {}
            for name, tab in offered_tabs().items():
                with gr.Tab(tab.title, id=name) as places[name]:
                    tab.build(page, places[name])
        opening = Opening(page, message)
        opening.listen(upload, opener)
        _follow_links(app, opening, tabs, places)
    # Nothing here takes long but a diagnosis, which has its own limit: a class that opens the page at once is served.
    return app.queue(max_size=_WAITING, default_concurrency_limit=8)


def _follow_links(app: gr.Blocks, opening: Opening, tabs: gr.Tabs, places: dict[str, gr.Tab]) -> None:
    """What an address says is shown, and what is shown stands in the address."""
    page, linked = opening.page, opening.page.linked
    controls = [entry.control for entry in linked.values()]
    private: dict[str, Any] = {"api_visibility": "private"}
    query = gr.Textbox(visible=False)
    outputs = [opening.message, page.opened, page.view, tabs, *controls]
    restored = app.load(
        lambda query, opened: opening.restore(query, opened, tabs, places),
        [query, page.opened],
        outputs,
        js="(query, opened) => [window.layertracer.asked, opened]",
        **QUIET,
    )
    restored.then(None, None, None, js="() => { window.layertracer.isShown = true; }", **private)
    for function, inputs, drawn in page.on_load:
        restored.then(function, inputs, drawn, **QUIET)
    gr.on([control.change for control in controls], None, controls, js=follow_script(linked), **private)
    for name, place in places.items():
        place.select(None, controls, js=follow_script(linked, name), **private)


def serve(app: gr.Blocks, **options: Any) -> Any:
    """Starts the page.

    Args:
        app (`gr.Blocks`): From [`build_app`].
        options: Of `gr.Blocks.launch`, such as `server_port`.

    Returns:
        `Any`: What `launch` returns.
    """
    # Fonts of the system: the page asks no other server for anything.
    fonts: dict[str, Any] = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    theme = gr.themes.Default(primary_hue="blue", **fonts).set(**_COLOURS)
    return app.launch(
        theme=theme,
        css_paths=[Path(__file__).with_name("style.css")],
        head=f"<script>{Path(__file__).with_name('page.js').read_text(encoding='utf-8')}</script>",
        max_file_size=MAX_BYTES,
        state_session_capacity=_SESSIONS,
        footer_links=[],
        ssr_mode=False,
        app_kwargs={"middleware": [Middleware(UploadLimit)]},
        **options,
    )
