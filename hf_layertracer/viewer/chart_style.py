"""What all interactive pictures share: axes, lines, and the small print on hover."""

from __future__ import annotations

import plotly.graph_objects as go

from ..report.palette import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION
from .escaping import for_plotly
from .glossary import GLOSSARY


LINES = (ORANGE, GREEN, VERMILLION, SKY, PURPLE, BLUE, GREY)
DASHES = ("solid", "dot", "dash", "dashdot")
BAR_WIDTH = 0.8  # of the distance between two layers


def dress(figure: go.Figure, title: str, x: str, y: str) -> None:
    """Gives a figure its title and axes, on no background of its own: the page is light or dark."""
    figure.update_layout(
        title={"text": wrapped(title, 46), "x": 0, "xanchor": "left", "font": {"size": 15}},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": GREY, "size": 12},
        legend={"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0, "xanchor": "left"},
        margin={"l": 48, "r": 12, "t": 56, "b": 84},
        dragmode=False,
        hoverlabel={"align": "left", "bgcolor": "white", "font": {"color": BLACK}},
        hovermode="closest",
        height=400,
        template="none",
    )
    grid = {"gridcolor": "rgba(128,128,128,0.25)", "zeroline": False, "automargin": True}
    figure.update_xaxes(title=x, **grid)
    figure.update_yaxes(title=y, **grid)


def line(number: int, name: object) -> dict:
    """Looks of the curve with a number: colours and dashes that tell 28 apart."""
    dash, colour = divmod(number, len(LINES))
    return {
        "mode": "lines",
        "line": {"color": LINES[colour], "dash": DASHES[dash % len(DASHES)], "width": 1.8},
        "name": for_plotly(name),
        "hoverinfo": "text",
    }


def explain(term: str) -> str:
    """A term's sentence in the small lines of a hover text."""
    return f"<i>{wrapped(GLOSSARY[term])}</i>"


def wrapped(text: str, width: int = 60) -> str:
    """Lines of a text without markup, as Plotly breaks none itself."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return "<br>".join(lines)


def after_layer(index: int) -> str:
    return "the embedding" if index < 0 else f"after layer {index}"


def name_layers(figure: go.Figure, num_layers: int) -> None:
    """Numbers a layer axis that begins with the embedding, which stands left of layer 0."""
    step = next((step for step in (1, 2, 5, 10, 20, 50) if num_layers <= 16 * step), 100)
    ticks = [-1, *range(0, num_layers, step)]
    names = ["emb", *("" if step > 1 and tick == 0 else str(tick) for tick in ticks[1:])]
    figure.update_xaxes(tickvals=ticks, ticktext=names)


def titled(figure: go.Figure, text: str, row: int) -> None:
    """Puts a title, already in lines, over one of several charts below each other."""
    figure.add_annotation(
        text=text,
        x=0,
        y=1,
        xref="x domain" if row == 1 else f"x{row} domain",
        yref="y domain" if row == 1 else f"y{row} domain",
        xanchor="left",
        yanchor="bottom",
        align="left",
        showarrow=False,
        font={"size": 12},
    )


def say_instead(figure: go.Figure, text: str, **place: int) -> go.Figure:
    """Puts a sentence where there is nothing to draw, at a place of a figure with several charts."""
    domains = {"xref": "x domain", "yref": "y domain"} if place else {"xref": "paper", "yref": "paper"}
    figure.add_annotation(text=wrapped(text, 50), showarrow=False, x=0.5, y=0.5, **domains, **place)
    if not place:
        figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, **place)
    return figure
