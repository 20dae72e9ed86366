"""Two pictures of a trial: learned against forgotten, and the loss curves."""

from __future__ import annotations

import math
from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..report.palette import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION
from ..text import one_line
from .results import TrialsResult
from .trade_off import Change, trade_off


TRADE_OFF_FILE, LOSSES_FILE = "learned_forgotten.png", "losses.png"
_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)
_SMALLEST, _LARGEST = 40, 400  # areas of points, in square points
_LITERAL = {"parse_math": False}


def draw_trade_off(result: TrialsResult) -> Figure | None:
    """Learned against forgotten: one point an arm with 95 % intervals, its area by peak memory.

    Where the untouched model is at chance on one of the two metrics, all points are grey and the title says so.

    Args:
        result ([`TrialsResult`]): The trial.

    Returns:
        `Figure` or `None`: `None` where no arm has both numbers.
    """
    shown = trade_off(result)
    if shown is None:
        return None
    points = shown.points
    figure, axes = _figure((9, 6.5))
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.plot(0, 0, marker="x", color=BLACK, linestyle="none", markersize=9, label="untouched model")
    memory = {arm: _peak(result, arm) for arm in points}
    most = max((peak for peak in memory.values() if peak), default=1)
    for index, (arm, (learned, forgotten)) in enumerate(points.items()):
        colour = GREY if shown.at_chance else _COLOURS[index % len(_COLOURS)]
        size = max(_SMALLEST, _LARGEST * (memory[arm] or 0) / most)
        axes.errorbar(
            forgotten.value,
            learned.value,
            xerr=_bars(forgotten),
            yerr=_bars(learned),
            color=colour,
            elinewidth=1.2,
            capsize=3,
        )
        marker = "o" if index < len(_COLOURS) else "s"
        label = f"{one_line(arm, 30)} ({memory[arm] / 2**20:.0f} MiB)" if memory[arm] else one_line(arm, 30)
        points_of_arm = axes.scatter(forgotten.value, learned.value, s=size, color=colour, marker=marker, alpha=0.6)
        points_of_arm.set_label(label)
    axes.set_xlabel(f"forgotten ({shown.forget}, loss against the untouched model)", **_LITERAL)
    axes.set_ylabel(f"learned ({shown.learn}, gain)", **_LITERAL)
    axes.set_title(f"{shown.title}; area: peak memory", fontsize=10, **_LITERAL)
    legend = axes.legend(loc="best", fontsize=9, frameon=False)
    for handle in legend.legend_handles:
        if hasattr(handle, "set_sizes"):
            handle.set_sizes([60])
    return figure


def draw_losses(result: TrialsResult) -> Figure | None:
    """Training loss: one panel an arm, a line a seed, the other arms in grey behind.

    Args:
        result ([`TrialsResult`]): The trial.

    Returns:
        `Figure` or `None`: `None` where no run logged a loss.
    """
    curves = {
        arm: [np.array(run["losses"]) for run in result.runs_of(arm) if run["losses"]] for arm in result.arm_names
    }
    curves = {arm: lines for arm, lines in curves.items() if lines}
    if not curves:
        return None
    columns = min(3, len(curves))
    rows = math.ceil(len(curves) / columns)
    figure = Figure(figsize=(4 * columns, 3 * rows), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
    for index, (arm, lines) in enumerate(curves.items()):
        for other, theirs in curves.items():
            if other != arm:
                for line in theirs:
                    panels[index].plot(*line.T, color="#dddddd", linewidth=0.8, zorder=1)
        for line in lines:
            # A run of few steps may have one logged loss, which a line does not show.
            marker = "." if len(line) == 1 else ""
            panels[index].plot(*line.T, marker, color=_COLOURS[index % len(_COLOURS)], linewidth=1.3, zorder=2)
        panels[index].set_title(one_line(arm, 40), fontsize=10, **_LITERAL)
        panels[index].spines[["top", "right"]].set_visible(False)
    for panel in list(panels)[len(curves) :]:
        panel.set_visible(False)
    figure.supxlabel("optimizer step", fontsize=10)
    figure.supylabel("training loss (nats per token)", fontsize=10)
    return figure


def png(figure: Figure) -> bytes:
    """A picture's file."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _figure(size: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _bars(estimate: Change) -> list[list[float]] | None:
    if estimate.low is None or estimate.high is None:
        return None
    return [[estimate.value - estimate.low], [estimate.high - estimate.value]]


def _peak(result: TrialsResult, arm: str) -> int | None:
    return max((run["cost"]["peak_memory_bytes"] or 0 for run in result.runs_of(arm)), default=None)
