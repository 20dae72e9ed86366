"""Removes paths of this machine from what is published. All that leaves the machine passes here."""

from __future__ import annotations

import re
from typing import Any

from ..report import LayerTracerReport


# A part of a path, and an absolute path of any system: of at least two parts, or after `file:`. In other addresses, two
# slashes follow a colon.
_PART = r"[^\s/\\'\"`<>|:;,()]"
_PATH = re.compile(
    rf"(?<![\w:/\\.~])(?:file:/+(?:[A-Za-z]:/)?(?:{_PART}+/)*|(?:~|[A-Za-z]:|\\)?[/\\](?:{_PART}+[/\\])+)(?P<last>{_PART}*)"
)
# What was asked and answered, and names of parameters, are what was measured: they stay as they are.
_KEPT = {
    "probes",
    "top_tokens",
    "likely",
    "patterns",
    "parameters",
    "frozen",
    "embeddings",
    "norm",
    "head",
    "other",
    "shared",
}


def public_report(report: LayerTracerReport) -> LayerTracerReport:
    """A report as it may be published: of paths in it, only the last part is left.

    Explanations may quote an error, and an error may name a file; settings and a plan's options may name one too. The
    probes' own texts stay as they are.

    Args:
        report ([`LayerTracerReport`]): The report, which is not changed.

    Returns:
        [`LayerTracerReport`]: A copy.
    """
    return LayerTracerReport.model_validate(_public(report.model_dump()))


def without_paths(text: str | None) -> str | None:
    """A text with only the last part of each absolute path."""
    return text and _PATH.sub(lambda match: match["last"] or "...", text)


def _public(value: Any) -> Any:
    if isinstance(value, str):
        return without_paths(value)
    if isinstance(value, list | tuple):
        return [_public(entry) for entry in value]
    if isinstance(value, dict):
        return {name: entry if name in _KEPT else _public(entry) for name, entry in value.items()}
    return value
