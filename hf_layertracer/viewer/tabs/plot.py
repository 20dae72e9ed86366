"""How a figure is put on a page."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr
import plotly.graph_objects as go
from gradio.components.plot import PlotData


# Values are read by hover and in tables; a bar of buttons over a chart is in the way of both, above all on a phone.
_CONFIG = {"displayModeBar": False, "displaylogo": False, "scrollZoom": False}


def plot(figure: go.Figure | None) -> dict[str, Any]:
    """What shows a figure, or hides the place of one.

    Args:
        figure (`go.Figure`, *optional*): The figure.

    Returns:
        `dict[str, Any]`: Arguments of `gr.Plot`, or of `gr.update` for one.
    """
    if figure is None:
        return {"value": None, "visible": False}
    content = json.loads(figure.to_json()) | {"config": _CONFIG}
    return {"value": PlotData(type="plotly", plot=json.dumps(content)), "visible": True}


def updates(contents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """An event's outputs from the arguments that each component would be built with."""
    return [gr.update(**content) for content in contents]
