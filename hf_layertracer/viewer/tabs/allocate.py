"""The page where an allocation is tried."""

from __future__ import annotations

import re
from typing import Any, get_type_hints

import gradio as gr

from ...errors import LayerTracerError
from ...planning.strategies import all_options
from ...text import compact_ranges
from .. import html_parts, plan_figures
from ..allocation import OFFERED, SNIPPETS, snippet, toggled, try_allocation, usual_budget
from ..links import Linked
from ..report_store import OpenedReports, ReportStore
from .base import QUIET, Page, Tab, plot


_LANGUAGES = {"Python": "python", "CLI": "shell"}
# What a click on a layer chooses, and the option that the clicked layers fill.
_CLICKED, _LAYERS = "explicit", "train_layers"
_BUDGET, _LIMITS = "budget", ("max_trainable_parameters", "max_memory")
_PICK = """
window.layertracer.onChartClick("lt-tried-plan", (bar) => trigger("click", {part: String(bar.y)}));
"""
_PART = re.compile(r"layer (\d{1,6})")


def _build(page: Page, tab: gr.Tab) -> None:
    with gr.Row():
        with gr.Column(min_width=320):
            strategy = gr.Dropdown(
                list(OFFERED),
                value=next(iter(OFFERED)),
                label="Strategy",
                info=next(iter(OFFERED.values())).summary,
                elem_id="lt-strategy",
                filterable=False,
            )
            options = option_controls(next(iter(OFFERED)))
            layers = gr.Textbox(
                label="Layers that train",
                info="Click layers in the stack, or write ranges such as 0-7,12.",
                max_length=2_000,
                elem_id="lt-layers-trained",
            )
            facts = gr.HTML(elem_id="lt-savings", js_on_load=_PICK)
        with gr.Column(min_width=320):
            plan = gr.Plot(
                show_label=False,
                visible=False,
                label="The plan that is tried, layer by layer",
                elem_id="lt-tried-plan",
            )
    memory = gr.Plot(
        show_label=False,
        visible=False,
        label="Memory against the fraction of layers that is frozen",
        elem_id="lt-memory",
    )
    form = gr.Radio(list(SNIPPETS), value=SNIPPETS[0], label="Use it elsewhere", elem_id="lt-form")
    code = gr.Code(label="Copy this", interactive=False, lines=4, show_line_numbers=False, elem_id="lt-snippet")

    page.linked["strategy"] = Linked(strategy, next(iter(OFFERED)), tab="allocate", choices=list(OFFERED))
    page.linked["form"] = Linked(form, SNIPPETS[0], tab="allocate", choices=SNIPPETS)
    page.linked[_LAYERS] = Linked(layers, "", tab="allocate")
    for name, control in options.items():
        page.linked[name] = Linked(control, control.value, tab="allocate")
    controls = [page.chosen, page.opened, strategy, form, layers, *options.values()]
    outputs = [facts, plan, memory, layers, code, strategy, *options.values()]

    def draw(*values: Any) -> list[Any]:
        return _allocate(page.reports, list(options), *values)

    def choose(name: str, opened: OpenedReports, _: str, *rest: Any) -> list[Any]:
        return draw(name, opened, _CLICKED, *rest)

    gr.on(
        [tab.select, page.chosen.change, strategy.input, form.input, *(o.input for o in options.values())],
        draw,
        controls,
        outputs,
        **QUIET,
    )
    page.on_load.append((draw, controls, outputs))
    gr.on([layers.submit, layers.blur], choose, controls, outputs, **QUIET)

    def click(clicked: gr.EventData, *values: Any) -> list[Any]:
        part = _PART.fullmatch(str(clicked.part))
        if part is None:  # embedding, norm and head follow their neighbours
            return draw(*values)
        name, opened, _, form, layers, *rest = values
        return draw(name, opened, _CLICKED, form, toggled(layers, int(part[1])), *rest)

    facts.click(click, controls, outputs, **QUIET)


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
    layers: str,
    *values: Any,
) -> list[Any]:
    chosen = OFFERED[strategy]
    nothing = gr.update(**plot(None))
    controls = {option: gr.update(visible=option in chosen.option_names) for option in names}
    shown = [gr.update(value=strategy, info=chosen.summary)]
    try:
        report = reports.report(name, opened)
    except LayerTracerError as error:
        return [html_parts.error(error), nothing, nothing, "", "", *shown, *controls.values()]
    settings = dict(zip(names, values, strict=True))
    if strategy == _BUDGET and not any(settings.get(limit) for limit in _LIMITS):
        settings[_LIMITS[0]] = usual_budget(report)
        controls[_LIMITS[0]] = gr.update(visible=True, value=settings[_LIMITS[0]])
    try:
        plan = try_allocation(report, strategy, **settings, **{_LAYERS: layers})
    except LayerTracerError as error:
        return [html_parts.error(error), nothing, nothing, layers, "", *shown, *controls.values()]
    try:
        text = gr.Code(snippet(plan, report, form), language=_LANGUAGES.get(form, "yaml"))
    except LayerTracerError as error:
        text = gr.Code(f"# {error}", language="yaml")
    return [
        html_parts.facts_list("Against full training", html_parts.savings_facts(plan.savings), plan.reason),
        gr.update(**plot(plan_figures.plan_figure(report.model, plan))),
        gr.update(**plot(plan_figures.memory_figure(report.model, plan))),
        compact_ranges(plan.trained_layers).replace(" ", ""),
        text,
        *shown,
        *controls.values(),
    ]


TAB = Tab("Try an allocation", _build, place=4)
