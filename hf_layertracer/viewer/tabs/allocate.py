"""The page where an allocation is tried."""

from __future__ import annotations

from typing import Any, get_type_hints

import gradio as gr

from ...errors import LayerTracerError
from ...planning.strategies import all_options
from .. import html_parts, plan_figures
from ..allocation import OFFERED, SNIPPETS, snippet, try_allocation
from ..links import Linked
from ..report_store import OpenedReports, ReportStore
from .base import QUIET, Page, Tab, plot


_LANGUAGES = {"Python": "python", "CLI": "shell"}
# What a click on a layer chooses, and the option that the clicked layers fill.
_CLICKED, _LAYERS = "explicit", "train_layers"


def _build(page: Page, tab: gr.Tab) -> None:
    with gr.Row():
        with gr.Column():
            strategy = gr.Dropdown(
                list(OFFERED),
                value=next(iter(OFFERED)),
                label="Strategy",
                info=next(iter(OFFERED.values())).summary,
                elem_id="lt-strategy",
                filterable=False,
            )
            options = option_controls(next(iter(OFFERED)))
            layers = gr.CheckboxGroup(
                [], label="Layers that train", info="Click layers to choose them yourself.", elem_id="lt-layer-boxes"
            )
        with gr.Column():
            facts = gr.HTML(elem_id="lt-savings")
            plan = gr.Plot(show_label=False, elem_id="lt-tried-plan")
    form = gr.Radio(list(SNIPPETS), value=SNIPPETS[0], label="Use it elsewhere", elem_id="lt-form")
    code = gr.Code(label="Copy this", interactive=False, lines=4, show_line_numbers=False, elem_id="lt-snippet")

    page.linked["strategy"] = Linked(strategy, next(iter(OFFERED)), tab="allocate", choices=list(OFFERED))
    page.linked["form"] = Linked(form, SNIPPETS[0], tab="allocate", choices=SNIPPETS)
    for name, control in options.items():
        page.linked[name] = Linked(control, control.value, tab="allocate")
    controls = [page.chosen, page.opened, strategy, form, layers, *options.values()]
    outputs = [facts, plan, layers, code, strategy, *options.values()]
    settings = {**QUIET, "trigger_mode": "always_last"}
    gr.on(
        [
            tab.select,
            page.chosen.change,
            strategy.input,
            form.input,
            *(control.input for control in options.values()),
        ],
        lambda *values: _allocate(page.reports, list(options), *values),
        controls,
        outputs,
        **settings,
    )
    layers.input(
        lambda name, opened, _, *rest: _allocate(page.reports, list(options), name, opened, _CLICKED, *rest),
        controls,
        outputs,
        **settings,
    )


def option_controls(strategy: str) -> dict[str, gr.components.Component]:
    """Builds a control for each option of the strategies that are offered, but for the layers, which are clicked.

    Args:
        strategy (`str`): The strategy whose options are shown.

    Returns:
        `dict[str, gr.components.Component]`: By name of the option.
    """
    controls = {}
    for name, (owner, field) in all_options().items():
        if name == _LAYERS or not any(name in known.option_names for known in OFFERED.values()):
            continue
        unit = field.metadata["unit"]
        about = {
            "label": field.metadata["help"].rstrip(".") + (f" (in {unit[0]})" if unit else ""),
            "value": field.default,
            "visible": name in OFFERED[strategy].option_names,
            "elem_id": f"lt-option-{name.replace('_', '-')}",
        }
        kind = get_type_hints(owner)[name]
        if field.metadata["slider"]:
            low, high, step = field.metadata["slider"]
            controls[name] = gr.Slider(low, high, step=step, **about)
        elif kind is bool:
            controls[name] = gr.Checkbox(**about)
        elif kind in (int, float, int | None, float | None):
            controls[name] = gr.Number(precision=0 if kind is int else None, minimum=0, **about)
        else:
            controls[name] = gr.Textbox(**about)
    return controls


def _allocate(
    reports: ReportStore,
    names: list[str],
    name: str,
    opened: OpenedReports,
    strategy: str,
    form: str,
    layers: list[str],
    *values: Any,
) -> list[Any]:
    chosen = OFFERED[strategy]
    shown = [gr.update(value=strategy, info=chosen.summary)]
    shown += [gr.update(visible=option in chosen.option_names) for option in names]
    try:
        report = reports.report(name, opened)
    except LayerTracerError as error:
        return [html_parts.error(error), gr.update(**plot(None)), gr.CheckboxGroup([], value=[]), "", *shown]
    numbers = [str(index) for index in range(report.num_layers)]
    ticked = [layer for layer in layers if layer in numbers]
    try:
        plan = try_allocation(report, strategy, **dict(zip(names, values, strict=True)), **{_LAYERS: ticked})
    except LayerTracerError as error:
        kept = gr.CheckboxGroup(numbers, value=ticked)
        return [html_parts.error(error), gr.update(**plot(None)), kept, "", *shown]
    sizes = [layer.size for layer in report.model.layers]
    drawn = plan_figures.plan_figure(plan, [layer.kind for layer in report.model.layers], sizes)
    try:
        text = gr.Code(snippet(plan, report, form), language=_LANGUAGES.get(form, "yaml"))
    except LayerTracerError as error:
        text = gr.Code(f"# {error}", language="yaml")
    return [
        html_parts.facts_list("Against full training", html_parts.savings_facts(plan.savings), plan.reason),
        gr.update(**plot(drawn)),
        gr.CheckboxGroup(numbers, value=[str(layer) for layer in plan.trained_layers]),
        text,
        *shown,
    ]


TAB = Tab("Try an allocation", _build, place=4)
