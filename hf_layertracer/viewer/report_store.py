"""The reports that a page can show: those that it starts with, and those that one visitor opened."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from ..errors import LayerTracerError, ReportNotFoundError
from ..report import LayerTracerReport
from .escaping import plain
from .hub_places import HubPlace, hub_place
from .hub_sources import hub_report
from .report_sources import read_report


# Reports by name, that one visitor opened; no other visitor sees them.
OpenedReports = dict[str, LayerTracerReport]
_OPENED_LIMIT = 6
_KEPT = 16
_NAME_LIMIT = 200


class ReportStore:
    """The reports that a page starts with, read when they are first looked at.

    Args:
        sources (`Mapping[str, Path | str]`): Report files and ids of repositories, by the name to show.
        token (`bool`, *optional*, defaults to `False`): Whether repositories are read with the owner's login.
    """

    def __init__(self, sources: Mapping[str, Path | str], token: bool = False):
        self._sources, self.token = dict(sources), token
        self._read = lru_cache(maxsize=_KEPT)(self._read_source)

    def _read_source(self, name: str) -> LayerTracerReport:
        source = self._sources[name]
        if isinstance(source, Path):
            return read_report(source, "/".join(source.parts[-2:]))
        return hub_report(source, self.token)

    def names(self, opened: OpenedReports) -> list[str]:
        """Names to choose from: what the visitor opened, then what the page starts with."""
        return [*opened, *self._sources]

    def at_hand(self, opened: OpenedReports) -> list[str]:
        """Names of reports that nobody has to wait for: all but those that start on the Hub."""
        return [*opened, *(name for name, source in self._sources.items() if isinstance(source, Path))]

    def leave_out(self, name: str) -> None:
        """Takes away what the page starts with under a name."""
        del self._sources[name]

    def report(self, name: str | None, opened: OpenedReports) -> LayerTracerReport:
        """A report by its name.

        Args:
            name (`str`, *optional*): The name that was chosen; anything may come from a browser.
            opened (`dict[str, LayerTracerReport]`): What the visitor opened.

        Returns:
            [`LayerTracerReport`]: The report.

        Raises:
            LayerTracerError: There is none of this name, or it cannot be read.
        """
        if isinstance(name, str) and name in opened:
            return opened[name]
        if isinstance(name, str) and name in self._sources:
            return self._read(name)
        gone = f"{plain(name, 60)} is no longer open. " if name else ""
        raise LayerTracerError(f"{gone}Choose a report, upload one or open one from the Hub.")

    def source(self, name: str | None, opened: OpenedReports) -> Path | HubPlace | None:
        """Where a report comes from; `None` where that is no file and no repository, as of an upload."""
        known = name if name in opened else self._sources.get(name or "", name or "")
        if isinstance(known, Path):
            return known
        try:
            return hub_place(known)
        except ReportNotFoundError:
            return None

    def add(self, name: str, report: LayerTracerReport, opened: OpenedReports) -> tuple[str, OpenedReports]:
        """Puts a report among those that a visitor opened; the oldest goes where there are too many.

        Args:
            name (`str`): What it is called.
            report ([`LayerTracerReport`]): The report.
            opened (`dict[str, LayerTracerReport]`): What the visitor opened before.

        Returns:
            `tuple[str, dict[str, LayerTracerReport]]`: The name to choose it by, and all that the visitor opened.
        """
        label = plain(name, _NAME_LIMIT) or "report"
        while label in self._sources:
            label += " (2)"
        kept = [(other, value) for other, value in opened.items() if other != label][: _OPENED_LIMIT - 1]
        return label, {label: report, **dict(kept)}
