"""Opening reports on the page: from an upload, from the Hub, and those that a link names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ..errors import LayerTracerError
from ..report import LayerTracerReport
from . import html_parts
from .escaping import plain
from .hub_places import hub_place
from .hub_sources import hub_report, search_hub
from .links import read_link
from .report_sources import parse_report
from .report_store import OpenedReports
from .tabs.base import CHECKED_BY_HANDLER, Page


MOST_IN_A_LINK = 6


@dataclass(frozen=True)
class Opener:
    """The controls that open a report of the Hub.

    Args:
        asked (`gr.Textbox`): A repository, or words to search for.
        found (`gr.Dropdown`): What was found.
        search, fetch (`gr.Button`): What to do with the text.
    """

    asked: gr.Textbox
    found: gr.Dropdown
    search: gr.Button
    fetch: gr.Button


def opener_of(open: bool, private: bool) -> Opener:
    """Builds the controls that open a report of the Hub.

    Args:
        open (`bool`): Whether they are unfolded at first.
        private (`bool`): Whether private repositories are among what is found.

    Returns:
        [`Opener`]: The controls.
    """
    with gr.Accordion("Open from the Hub", open=open, elem_id="lt-open-hub"), gr.Row():
        asked = gr.Textbox(
            label="Repository or its address, or words to search for",
            placeholder="user/name, user/name@revision",
            max_length=300,
            scale=2,
            elem_id="lt-hub",
        )
        found = gr.Dropdown(
            [],
            label="Found",
            info=f"{'All' if private else 'Public'} repositories tagged layertracer.",
            scale=2,
            elem_id="lt-found",
            **CHECKED_BY_HANDLER,
        )
        search = gr.Button("Search", elem_id="lt-search")
        fetch = gr.Button("Open", variant="primary", elem_id="lt-open")
    return Opener(asked, found, search, fetch)


@dataclass(frozen=True)
class Opening:
    """Opens reports, and says on the page what came of it.

    Args:
        page ([`Page`]): The page.
        message (`gr.HTML`): Where to say it.
    """

    page: Page
    message: gr.HTML

    def listen(self, upload: gr.UploadButton, opener: Opener) -> None:
        """Opens what is uploaded, and what is asked for of the Hub.

        Args:
            upload (`gr.UploadButton`): Takes a file.
            opener ([`Opener`]): The controls for the Hub.
        """
        opened, shown = self.page.opened, [self.message, self.page.chosen, self.page.opened]
        private: dict[str, Any] = {"api_visibility": "private"}
        asked, found = opener.asked, opener.found
        upload.upload(self._open_upload, [upload, opened], shown, trigger_mode="multiple", **private)
        gr.on([opener.fetch.click, asked.submit], self._open_from_hub, [asked, opened], shown, **private)
        found.input(self._open_from_hub, [found, opened], shown, **private)
        opener.search.click(lambda text: self._search(text, found), asked, [self.message, found], **private)

    def restore(
        self, query: str | None, opened: OpenedReports, tabs: gr.Tabs, places: Mapping[str, gr.Tab]
    ) -> dict[Any, Any]:
        """Opens and shows what a link says.

        Args:
            query (`str`, *optional*): The part of the address from the question mark on.
            opened (`dict[str, LayerTracerReport]`): What the visitor opened before.
            tabs (`gr.Tabs`): The tabs.
            places (`Mapping[str, gr.Tab]`): Each tab by name.

        Returns:
            `dict`: Updates of what differs from the page as it is built.
        """
        page = self.page
        view = read_link(query or "", page.linked)
        changes: dict[Any, Any] = {}
        if view.get("tab") in places:
            changes[tabs] = gr.Tabs(selected=view["tab"])
        named = [*([view["report"]] if "report" in view else []), *view.get("compare", [])]
        found, opened, problem = self._find(named, opened)
        if problem is not None:
            changes[self.message] = html_parts.error(problem)
        changes[page.opened], offered = opened, page.reports.names(opened)
        for name, value in view.items():
            if name == "report":
                if value in found:
                    changes[page.chosen] = gr.Dropdown(offered, value=found[value])
            elif name == "compare":
                compared = [found[report] for report in value if report in found]
                changes[page.linked[name].control] = gr.Dropdown(offered, value=compared)
            elif name in page.linked:
                changes[page.linked[name].control] = gr.update(value=value)
        return {**changes, page.view: view | {"report": found.get(view.get("report", ""))}}

    def _find(
        self, names: list[str], opened: OpenedReports
    ) -> tuple[dict[str, str], OpenedReports, LayerTracerError | None]:
        """Opens reports: the names to choose them by, all that is open now, and what went wrong last."""
        found: dict[str, str] = {}
        problem = None
        for name in dict.fromkeys(names[:MOST_IN_A_LINK]):
            if name in self.page.reports.names(opened):
                found[name] = name
                continue
            try:
                report = hub_report(name, self.page.reports.token)
                found[name], opened = self.page.reports.add(str(hub_place(name)), report, opened)
            except LayerTracerError as error:
                problem = error
        return found, opened, problem

    def _open_upload(self, content: bytes | None, opened: OpenedReports) -> dict[Any, Any]:
        try:
            report = parse_report(content or b"", "The uploaded file")
        except LayerTracerError as error:
            return {self.message: html_parts.error(error)}
        return self._show(report, f"{plain(report.model.name, 60)} (uploaded)", opened)

    def _open_from_hub(self, place: str | None, opened: OpenedReports) -> dict[Any, Any]:
        try:
            report = hub_report(place or "", self.page.reports.token)
        except LayerTracerError as error:
            return {self.message: html_parts.error(error)}
        return self._show(report, str(hub_place(place or "")), opened)

    def _show(self, report: LayerTracerReport, label: str, opened: OpenedReports) -> dict[Any, Any]:
        shown = self.page.show(label, report, opened)
        return {self.message: html_parts.note(f"Opened {next(iter(shown[self.page.opened]))}."), **shown}

    def _search(self, text: str, found: gr.Dropdown) -> dict[Any, Any]:
        try:
            repos = search_hub(text, token=self.page.reports.token)
        except LayerTracerError as error:
            return {self.message: html_parts.error(error)}
        none = "Nothing found: no readable repository of that name is tagged layertracer."
        said = f"Found {len(repos)}." if repos else none
        return {self.message: html_parts.note(said), found: gr.Dropdown(repos, value=None)}
