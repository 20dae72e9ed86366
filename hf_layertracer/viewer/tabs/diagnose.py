"""The page where a visitor diagnoses a model, if the owner of the page lets them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from ...errors import LayerTracerError
from .. import html_parts
from ..live import MAX_MODEL_BYTES, MAX_PROBES, diagnose_live, is_offered
from ..report_store import OpenedReports
from .base import Page, Tab


def _build(page: Page, tab: gr.Tab) -> None:
    gr.Markdown(
        f"Runs a public model of the Hub with up to {MAX_MODEL_BYTES / 2**30:g} GiB of safetensors weights on this "
        "page's processor, one at a time; the others wait their turn. Nothing is kept."
    )
    model = gr.Textbox(
        label="Model", placeholder="HuggingFaceTB/SmolLM2-135M-Instruct", max_length=200, elem_id="lt-model"
    )
    probes = gr.Slider(4, MAX_PROBES, 16, step=4, label="Probes", info="How many of the library's own probes to ask.")
    quick = gr.Checkbox(
        True, label="Quick look", info="Skips each layer and masks the context, but masks no dimensions: much faster."
    )
    with gr.Row():
        start = gr.Button("Diagnose", variant="primary", elem_id="lt-start")
        stop = gr.Button("Cancel", elem_id="lt-stop")
    progress = gr.HTML(elem_id="lt-progress")

    def run(model: str, probes: float, quick: bool, opened: OpenedReports) -> Iterator[dict[Any, Any]]:
        yield {progress: html_parts.progress("Starting", 0)}
        try:
            for state in diagnose_live(model or "", probes=int(probes), quick=quick):
                if isinstance(state, float):
                    yield {progress: html_parts.progress("Diagnosing" if state else "Loading the model", state)}
                    continue
                label = state.model.id or state.model.architecture
                done = html_parts.note(f"Done: {label}. Its report is open on the other tabs.")
                yield {progress: done, **page.show(f"{label} (diagnosed here)", state, opened)}
        except LayerTracerError as error:
            yield {progress: html_parts.error(error)}

    running = start.click(
        run,
        [model, probes, quick, page.opened],
        [progress, page.chosen, page.opened],
        concurrency_limit=1,
        concurrency_id="diagnose",
        show_progress="minimal",
        show_progress_on=progress,
        api_visibility="private",
    )
    stop.click(
        lambda: html_parts.note("Cancelled."), None, progress, cancels=running, api_visibility="private", queue=False
    )


TAB = Tab("Diagnose", _build, place=9, is_offered=is_offered)
