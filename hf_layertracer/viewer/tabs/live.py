"""The page where a visitor diagnoses a model, if the owner of the page lets them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from ...errors import LayerTracerError
from .. import pages
from ..live import MAX_MODEL_BYTES, MAX_PROBES, diagnose_live
from ..shelf import Opened, Shelf


def live_tab(shelf: Shelf, name: gr.Dropdown, opened: gr.State, compared: gr.Dropdown) -> None:
    """Builds the page.

    Args:
        shelf ([`Shelf`]): Where the report goes.
        name (`gr.Dropdown`): The chosen report, which the new one becomes.
        opened (`gr.State`): What the visitor opened.
        compared (`gr.Dropdown`): The reports to compare.
    """
    gr.Markdown(
        f"Runs a public model of the Hub with up to {MAX_MODEL_BYTES / 2**30:g} GiB of safetensors weights on this "
        "page's processor, one at a time; the others wait their turn. Nothing is kept."
    )
    model = gr.Textbox(
        label="Model", placeholder="HuggingFaceTB/SmolLM2-135M-Instruct", max_length=200, elem_id="lt-model"
    )
    probes = gr.Slider(4, MAX_PROBES, 16, step=4, label="Probes", info="Of those that ship with the library.")
    estimator = gr.Radio(["gradient", "exact"], value="gradient", label="Layer Sensitivity")
    with gr.Row():
        start = gr.Button("Diagnose", variant="primary", elem_id="lt-start")
        stop = gr.Button("Cancel", variant="stop", elem_id="lt-stop")
    progress = gr.HTML(elem_id="lt-progress")

    def run(model: str, probes: float, estimator: str, opened: Opened) -> Iterator[list[Any]]:
        yield [pages.progress("Starting", 0), gr.skip(), gr.skip(), gr.skip()]
        try:
            for state in diagnose_live(model or "", probes=int(probes), estimator=estimator):
                if isinstance(state, float):
                    yield [pages.progress("Diagnosing" if state else "Loading the model", state), *[gr.skip()] * 3]
                    continue
                label, now = shelf.add(state.model.id or state.model.architecture, state, opened)
                names = shelf.names(now)
                done = pages.note(f"Done: {label}. Its report is open on the other tabs.")
                yield [done, gr.Dropdown(names, value=label), gr.Dropdown(names), now]
        except LayerTracerError as error:
            yield [pages.error(error), *[gr.skip()] * 3]

    running = start.click(
        run,
        [model, probes, estimator, opened],
        [progress, name, compared, opened],
        concurrency_limit=1,
        concurrency_id="diagnose",
        show_progress="minimal",
        show_progress_on=progress,
        api_visibility="private",
    )
    stop.click(
        lambda: pages.note("Cancelled."), None, progress, cancels=running, api_visibility="private", queue=False
    )
