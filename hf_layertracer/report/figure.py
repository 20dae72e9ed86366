"""The picture of a report: Layer Sensitivity above, lens probability below, one column per layer."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ..records import ReportData
from .context_panel import draw_context
from .drawing import (
    LABEL,
    LITERAL,
    MARKED,
    PANEL_TITLE,
    add_legend,
    count_of,
    drawable,
    later_style,
    number_layers,
    shade_plan,
    tidy,
)
from .lens_panel import draw_lens
from .palette import BLACK, BLUE, GREEN, ORANGE, PURPLE, VERMILLION, kind_colours


_SIZE_INCHES = (16, 10)
_DPI = 100
_TITLE, _TITLE_LIMIT = 21, 64
# Bits: a model that no perturbation moves still gets an axis.
_SMALLEST_SCALE = 0.001
# Of the second perturbation and of those after it.
_FURTHER = ((VERMILLION, "D"), (GREEN, "s"), (PURPLE, "^"), (ORANGE, "v"))


def draw_report(report: ReportData) -> Figure:
    """Draws a report for a reader who has a few seconds.

    Args:
        report ([`ReportData`]): The report, of a model with any number of layers.

    Returns:
        `matplotlib.figure.Figure`: 1600 x 1000 pixels, with its own Agg canvas; pyplot does not know of it.
    """
    figure = Figure(figsize=_SIZE_INCHES, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(h_pad=0.12, w_pad=0.12)
    figure.suptitle(_headline(report), fontsize=_TITLE, fontweight="bold", linespacing=1.4, **LITERAL)
    if not report.is_measured:
        _draw_sizes(figure.subplots(), report)
        return figure
    context = report.first.context
    heights = [4, 4] if context is None else [4, 4, 2]
    panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    _draw_sensitivity(panels[0], report)
    draw_lens(panels[1], report)
    if context is not None:
        draw_context(panels[2], context)
    for axes in panels:
        tidy(axes)
    number_layers(panels[-1], report.num_layers)
    panels[-1].set_xlabel("Layer, counted from 0 (emb: the embedding's output)", fontsize=LABEL)
    for axes in panels[:-1]:
        axes.tick_params(labelbottom=True)
    for axes in (panels[0], *panels[2:]):  # the embedding has a place among the lens curves only
        axes.tick_params(which="minor", bottom=False, labelbottom=False)
    panels[1].tick_params(which="minor", labelbottom=True)
    return figure


def _draw_sizes(axes: Axes, report: ReportData) -> None:
    """Of a model that was not measured: how large each layer is, and which train."""
    sizes = [layer.size for layer in report.model.layers]
    bars = axes.bar(range(report.num_layers), sizes, color=BLUE, label="parameters", zorder=2)
    axes.set_title("Parameters of each layer (nothing was measured)", fontsize=PANEL_TITLE, loc="left")
    axes.set_xlabel("Layer, counted from 0", fontsize=LABEL)
    axes.set_ylim(0, max(*sizes, 1) * 1.18)
    tidy(axes)
    number_layers(axes, report.num_layers)
    add_legend(axes, [bars, *shade_plan(axes, report)])


def _headline(report: ReportData) -> str:
    model = drawable(report.model.name, _TITLE_LIMIT)
    plan = f"plan: {drawable(report.plan.strategy)}" if report.plan else "no plan"
    return f"{model}\n{count_of(report.num_layers, 'layer')}  ·  {count_of(report.probes.count, 'probe')}  ·  {plan}"


def _draw_sensitivity(axes: Axes, report: ReportData) -> None:
    sensitivity = report.first.sensitivity
    layers = range(report.num_layers)
    colours = kind_colours([layer.kind for layer in report.model.layers])
    bars = axes.bar(
        layers,
        sensitivity.mean,
        yerr=sensitivity.stderr if sensitivity.stderr_known else None,
        color=[colours[layer.kind] for layer in report.model.layers],
        error_kw={"ecolor": BLACK, "elinewidth": 1.5, "capsize": min(5, 160 / report.num_layers)},
        label="Layer Sensitivity" if len(report.first.sensitivities) == 1 else drawable(report.first.perturbation),
        zorder=2,
    )
    kinds = [Patch(color=colour, label=drawable(kind)) for kind, colour in colours.items()]
    tops = [mean + error for mean, error in zip(sensitivity.mean, sensitivity.stderr, strict=True)]
    several = len(report.first.sensitivities) > 1
    handles: list[Artist] = [bars] if len(kinds) == 1 else [bars, *kinds] if several else [*kinds]
    handles += _mark_vulnerable(axes, report, tops)
    handles += _draw_further(axes, report)
    tops += [value for other in report.first.sensitivities.values() for value in other.mean]
    if report.is_repeated:
        after = report.latest.sensitivity.mean
        tops += after
        handles += axes.plot(range(len(after)), after, **later_style(report.latest))
    axes.set_ylim(0, max(*tops, _SMALLEST_SCALE) * 1.18)
    axes.set_ylabel("Divergence (bits)", fontsize=LABEL)
    errors = "±1 standard error" if sensitivity.stderr_known else "one perturbation: standard error not known"
    axes.set_title(f"Layer Sensitivity ({errors})", fontsize=PANEL_TITLE, loc="left")
    add_legend(axes, handles + shade_plan(axes, report))


def _draw_further(axes: Axes, report: ReportData) -> list[Line2D]:
    """The perturbations that were measured beside the first, as lines over its bars."""
    others = [(name, found) for name, found in report.first.sensitivities.items() if name != report.first.perturbation]
    lines: list[Line2D] = []
    for (name, found), (colour, marker) in zip(others, _FURTHER, strict=False):
        look = {
            "color": colour,
            "linewidth": 2,
            "marker": marker if report.num_layers <= MARKED else None,
            "markersize": 6,
        }
        lines += axes.plot(range(len(found.mean)), found.mean, label=drawable(name), zorder=4, **look)
    return lines


def _mark_vulnerable(axes: Axes, report: ReportData, tops: Sequence[float]) -> list[Line2D]:
    vulnerable, rivals = report.first.sensitivity.vulnerable_layer, report.first.sensitivity.rivals
    gap = max(*tops, _SMALLEST_SCALE) * 0.06

    def mark(layers: list[int], fill_colour: str, label: str) -> list[Line2D]:
        heights = [tops[layer] + gap for layer in layers]
        style = {"marker": "v", "markersize": 11, "color": BLACK, "markerfacecolor": fill_colour, "linestyle": "none"}
        return axes.plot(layers, heights, label=label, **style)

    marks = mark([vulnerable], BLACK, f"vulnerable layer: {vulnerable}")
    return marks + mark(rivals, "white", "within 2 errors of it") if rivals else marks
