"""How a figure is put on a page."""

from __future__ import annotations

import json

import gradio as gr
import plotly.graph_objects as go
from gradio.components.plot import PlotData


# Values are read by hover and in tables; a bar of buttons over a chart is in the way of both, above all on a phone.
_CONFIG = {"displayModeBar": False, "displaylogo": False, "scrollZoom": False}


def plot(figure: go.Figure | None) -> dict:
    """An update that shows a figure, or hides the place of one.

    Args:
        figure (`go.Figure`, *optional*): The figure.

    Returns:
        `dict`: For a `gr.Plot` among an event's outputs.
    """
    if figure is None:
        return gr.update(value=None, visible=False)
    content = json.loads(figure.to_json()) | {"config": _CONFIG}
    return gr.update(value=PlotData(type="plotly", plot=json.dumps(content)), visible=True)
