"""The panel of the context sensitivity: where along the depth the rest of the prompt comes in."""

from __future__ import annotations

from matplotlib.axes import Axes

from ..records import ContextSensitivity
from .drawing import LABEL, PANEL_TITLE
from .palette import BLACK, GREEN


def draw_context(axes: Axes, context: ContextSensitivity) -> None:
    """Draws what each layer adds to the divergence between the lens with and without a part of the prompt.

    Args:
        axes (`Axes`): Where.
        context ([`ContextSensitivity`]): The measurement.
    """
    layers = range(len(context.delta))
    error = {"ecolor": BLACK, "elinewidth": 1.5, "capsize": min(5, 160 / len(layers))}
    errors = context.delta_stderr if context.stderr_known else None
    axes.bar(layers, context.delta, yerr=errors, color=GREEN, error_kw=error, zorder=2)
    axes.axhline(0, color=BLACK, linewidth=1, zorder=1)
    axes.set_ylabel("Bits", fontsize=LABEL)
    axes.set_title(
        "Context sensitivity: divergence that each layer adds when a part of the prompt is blanked",
        fontsize=PANEL_TITLE,
        loc="left",
    )
