"""The picture of a hybrid: its stack of layers, coloured by donor."""

from __future__ import annotations

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ..report.palette import GREY, kind_colours
from ..text import one_line
from .provenance import HybridRecord


PICTURE_FILE = "layertracer_hybrid.png"
# Text of a record is someone else's: no `$` in it may start a formula, whatever the user's matplotlibrc says.
_LITERAL = {"parse_math": False, "usetex": False}
_HATCH = "////"


def draw_stack(record: HybridRecord) -> Figure:
    """Draws a hybrid's layers from left to right: the colour says the donor, hatching a new token mixer.

    Args:
        record ([`HybridRecord`]): The hybrid.

    Returns:
        `matplotlib.figure.Figure`: The figure, with its own Agg canvas.
    """
    colours = kind_colours([layer.donor for layer in record.layers])
    depth = len(record.layers)
    figure = Figure(figsize=(max(8.0, min(24.0, 0.35 * depth)), 2.8), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for layer in record.layers:
        hatch = _HATCH if layer.mixer else None
        axes.bar(layer.layer, 1, width=0.92, color=colours[layer.donor], edgecolor="white", hatch=hatch)
        if depth <= 48:
            axes.text(layer.layer, 0.5, str(layer.donor_layer), ha="center", va="center", color="white", fontsize=9)
    donors = [Patch(color=colour, label=one_line(donor, 48)) for donor, colour in colours.items()]
    mixers = sorted({layer.mixer for layer in record.layers if layer.mixer})
    patches = [Patch(facecolor=GREY, edgecolor="white", hatch=_HATCH, label=f"new mixer: {kind}") for kind in mixers]
    legend = axes.legend(
        handles=[*donors, *patches], loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False
    )
    for text in legend.get_texts():
        text.set(**_LITERAL)
    axes.set(xlim=(-0.6, depth - 0.4), ylim=(0, 1), xlabel="layer (in the bars: its number in the donor)", yticks=[])
    axes.set_xticks(range(0, depth, max(1, depth // 16)))
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def picture(record: HybridRecord) -> bytes:
    """The picture as a PNG file."""
    buffer = io.BytesIO()
    draw_stack(record).savefig(buffer, format="png")
    return buffer.getvalue()
