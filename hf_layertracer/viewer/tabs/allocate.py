"""The page where an allocation is tried."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ...errors import LayerTracerError
from .. import figures, pages
from ..allocation import CHOICES, SNIPPETS, WITH_RATIO, snippet, try_allocation
from ..shelf import Opened, Shelf
from .plot import plot


_LANGUAGES = {"Python": "python", "CLI": "shell"}


def allocate_tab(shelf: Shelf, name: gr.Dropdown, opened: gr.State, tab: gr.Tab) -> None:
    """Builds the page.

    Args:
        shelf ([`Shelf`]): Where reports come from.
        name (`gr.Dropdown`): The chosen report.
        opened (`gr.State`): What the visitor opened.
        tab (`gr.Tab`): The tab that it stands in.
    """
    with gr.Row():
        with gr.Column():
            strategy = gr.Dropdown(
                list(CHOICES), value=CHOICES[0], label="Strategy", elem_id="lt-strategy", filterable=False
            )
            ratio = gr.Slider(0.05, 0.95, 0.5, step=0.05, label="Fraction of the layers to freeze", elem_id="lt-ratio")
            millions = gr.Number(
                50, label="Million parameters that may train", minimum=0, visible=False, elem_id="lt-millions"
            )
            seed = gr.Number(0, label="Seed", minimum=0, maximum=2**31, precision=0, visible=False, elem_id="lt-seed")
            layers = gr.CheckboxGroup(
                [], label="Layers that train", info="Click layers to choose them yourself.", elem_id="lt-layer-boxes"
            )
        with gr.Column():
            facts = gr.HTML(elem_id="lt-savings")
            plan = gr.Plot(show_label=False, elem_id="lt-tried-plan")
    form = gr.Radio(list(SNIPPETS), value=SNIPPETS[0], label="Use it elsewhere", elem_id="lt-form")
    code = gr.Code(label="Copy this", interactive=False, lines=4, show_line_numbers=False, elem_id="lt-snippet")

    controls = [name, opened, strategy, ratio, millions, seed, layers, form]
    outputs = [facts, plan, layers, strategy, ratio, millions, seed, code]
    settings: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "trigger_mode": "always_last"}
    gr.on(
        [tab.select, name.change, strategy.input, ratio.input, millions.input, seed.input, form.input],
        lambda *values: _allocate(shelf, *values),
        controls,
        outputs,
        **settings,
    )
    layers.input(
        lambda name, opened, _, *rest: _allocate(shelf, name, opened, "explicit", *rest), controls, outputs, **settings
    )


def _allocate(
    shelf: Shelf,
    name: str,
    opened: Opened,
    strategy: str,
    ratio: float,
    millions: float | None,
    seed: float | None,
    layers: list[str],
    form: str,
) -> list[Any]:
    shown = [
        strategy,
        gr.Slider(visible=strategy in WITH_RATIO),
        gr.Number(visible=strategy == "budget"),
        gr.Number(visible=strategy == "random"),
    ]
    try:
        report = shelf.report(name, opened)
    except LayerTracerError as error:
        return [pages.error(error), gr.update(**plot(None)), gr.CheckboxGroup([], value=[]), *shown, ""]
    numbers = [str(index) for index in range(report.num_layers)]
    ticked = [int(layer) for layer in layers if layer in numbers]
    try:
        plan = try_allocation(report, strategy, ratio=ratio, millions=millions, seed=int(seed or 0), layers=ticked)
    except LayerTracerError as error:
        kept = gr.CheckboxGroup(numbers, value=[str(layer) for layer in ticked])
        return [pages.error(error), gr.update(**plot(None)), kept, *shown, ""]
    sizes = [layer.size for layer in report.model.layers]
    drawn = figures.plan_figure(plan, [layer.kind for layer in report.model.layers], sizes)
    try:
        text = gr.Code(snippet(plan, report, form), language=_LANGUAGES.get(form, "yaml"))
    except LayerTracerError as error:
        text = gr.Code(f"# {error}", language="yaml")
    return [
        pages.facts_list("Against full training", pages.savings_facts(plan.savings), plan.reason),
        gr.update(**plot(drawn)),
        gr.CheckboxGroup(numbers, value=[str(layer) for layer in plan.trained_layers]),
        *shown,
        text,
    ]
