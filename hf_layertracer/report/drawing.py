"""What the panels of a report's picture share: how layers are numbered, plans shaded and foreign text is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from ..records import Diagnosis, ReportData
from ..text import one_line
from .palette import BLACK, ORANGE, SKY


PANEL_TITLE, LABEL = 18, 15
NAME_LIMIT = 24
MARKED = 40  # most layers that leave room for markers on a curve
# Most digits along the layer axis; most layers that leave room for "emb" beside the 0.
_DIGITS, _ROOMY = 70, 20
# Text of a report is someone else's: no `$` in it may start a formula, whatever the user's matplotlibrc says.
LITERAL = {"parse_math": False, "usetex": False}


def tidy(axes: Axes) -> None:
    """Labels of one size, and no frame."""
    axes.tick_params(which="both", labelsize=LABEL, length=4, pad=4)
    axes.spines[["top", "right"]].set_visible(False)


def shade_plan(axes: Axes, report: ReportData) -> list[Patch]:
    """Shades what the plan trains and freezes; returns one handle for each of the two that occurs."""
    if report.plan is None:
        return []
    trained = set(report.plan.trained_layers)
    partly = ", in part" if report.plan.patterns else ""
    looks = {True: (ORANGE, f"trained{partly}"), False: (SKY, "frozen")}
    handles = {}
    for trains, group in groupby(range(report.num_layers), key=trained.__contains__):
        run = list(group)
        colour, label = looks[trains]
        handles[trains] = axes.axvspan(
            run[0] - 0.5, run[-1] + 0.5, color=colour, alpha=0.18, linewidth=0, zorder=0, label=label
        )
    return [handles[trains] for trains in (True, False) if trains in handles]


def number_layers(axes: Axes, num_layers: int) -> None:
    """Numbers as many layers as can be read, and the embedding before them."""
    numbers = _DIGITS // len(str(num_layers))
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, num_layers) if num_layers <= step * numbers)
    axes.set_xlim(-1.6, num_layers - 0.4)
    axes.set_xticks(range(0, num_layers, step), [str(layer) for layer in range(0, num_layers, step)])
    axes.set_xticks([-1], ["emb"], minor=True)
    if num_layers > _ROOMY:
        axes.tick_params(which="minor", pad=4 + 1.2 * LABEL)


def later_style(diagnosis: Diagnosis) -> dict[str, object]:
    """The look of what a later diagnosis found."""
    outline = [withStroke(linewidth=5, foreground="white")]
    style = {"color": BLACK, "linestyle": "--", "linewidth": 2.5, "zorder": 5, "path_effects": outline}
    return {**style, "label": f"after step {diagnosis.step}"}


def add_legend(axes: Axes, handles: Sequence[Artist]) -> None:
    """A legend to the right of a panel."""
    place = {"loc": "upper left", "bbox_to_anchor": (1.005, 1), "borderaxespad": 0}
    legend = axes.legend(handles=list(handles), frameon=False, fontsize=LABEL, labelspacing=0.3, **place)
    for text in legend.get_texts():
        text.set(**LITERAL)


def drawable(text: str, limit: int = NAME_LIMIT) -> str:
    """A string of the report that the font can draw; boxes stand for what it lacks."""
    glyphs = get_font(findfont(FontProperties())).get_charmap()
    text = "".join(char if ord(char) in glyphs else "□" for char in one_line(text, limit))
    # Legends leave out what starts with an underscore.
    return text.lstrip("_") or "unnamed"


def count_of(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
