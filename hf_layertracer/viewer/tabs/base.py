"""What a tab is, what it knows of the page around it, and how figures are put on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
import plotly.graph_objects as go
from gradio.components.plot import PlotData

from ...report import LayerTracerReport
from ..links import Linked
from ..report_store import OpenedReports, ReportStore


# Values are read by hover and in tables; a bar of buttons over a chart is in the way of both, above all on a phone.
_CONFIG = {"displayModeBar": False, "displaylogo": False, "scrollZoom": False}
# No event is offered to programs, and none covers what it changes while it runs. By default, Gradio drops what a visitor
# does while the event before is still under way; so does `gr.on` with whatever its first event is not a `change`.
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "trigger_mode": "always_last"}
# A dropdown puts what it refuses into a message on the page, as HTML. Names come from reports: the handlers check them.
CHECKED_BY_HANDLER: dict[str, Any] = {"allow_custom_value": True}


@dataclass(frozen=True)
class Page:
    """The page around a tab.

    Args:
        reports ([`ReportStore`]): Where reports come from.
        chosen (`gr.Dropdown`): The name of the chosen report.
        opened (`gr.State`): What the visitor opened.
        view (`gr.State`):
            What the link says that opened the page, by name of the control. While its report is drawn, it takes the
            place of the usual.
        linked (`dict[str, Linked]`): The controls that a link holds, by name; a tab adds its own.
        on_load (`list`): What a tab draws when the page was loaded: function, inputs and outputs of each event.
    """

    reports: ReportStore
    chosen: gr.Dropdown
    opened: gr.State
    view: gr.State
    linked: dict[str, Linked] = field(default_factory=dict)
    on_load: list[tuple[Callable[..., Any], list[Any], list[Any]]] = field(default_factory=list)

    def show(self, label: str, report: LayerTracerReport, opened: OpenedReports) -> dict[Any, Any]:
        """Opens a report.

        Args:
            label (`str`): What to call it.
            report ([`LayerTracerReport`]): The report.
            opened (`dict[str, LayerTracerReport]`): What the visitor opened before.

        Returns:
            `dict`: The updates of `chosen` and `opened`.
        """
        name, now = self.reports.add(label, report, opened)
        return {self.chosen: gr.Dropdown(self.reports.names(now), value=name), self.opened: now}


@dataclass(frozen=True)
class Tab:
    """A tab of the viewer. A module of this package with a `TAB` adds one.

    Args:
        title (`str`): What stands on the tab.
        build (`Callable`): Takes the [`Page`] and the `gr.Tab` that it fills, and listens to events.
        place (`float`): Tabs stand in this order.
        is_offered (`Callable`, *optional*): Whether this page has the tab; all have it by default.
    """

    title: str
    build: Callable[[Page, gr.Tab], None]
    place: float
    is_offered: Callable[[], bool] = lambda: True


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


def updates(components: dict[str, Any], contents: dict[str, dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    """An event's outputs from the arguments that each component, by its name, would be built with."""
    return {components[name]: gr.update(**content) for name, content in contents.items()}
