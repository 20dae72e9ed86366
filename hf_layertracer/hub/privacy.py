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
    "target_modules",
    "train_layers",
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
    probes' own texts stay as they are, and so do a plan's patterns, also where its reason quotes them.

    Args:
        report ([`LayerTracerReport`]): The report, which is not changed.

    Returns:
        [`LayerTracerReport`]: A copy.
    """
    return LayerTracerReport.model_validate(public_value(report.model_dump()))


def without_paths(text: str | None) -> str | None:
    """A text with only the last part of each absolute path."""
    return text and _PATH.sub(lambda match: match["last"] or "...", text)


def public_value(value: Any) -> Any:
    """A value that JSON can hold, with only the last part of each absolute path in its texts.

    Args:
        value (`Any`): Anything; of dictionaries, the values under names such as `patterns` stay as they are.

    Returns:
        `Any`: A copy.
    """
    if isinstance(value, str):
        return without_paths(value)
    if isinstance(value, list | tuple):
        return [public_value(entry) for entry in value]
    if isinstance(value, dict):
        public = {name: entry if name in _KEPT else public_value(entry) for name, entry in value.items()}
        if isinstance(value.get("reason"), str) and value.get("patterns"):
            public["reason"] = _without_paths_beside(value["reason"], value["patterns"])
        return public
    return value


def _without_paths_beside(text: str, patterns: list[str]) -> str:
    """A text without paths that quotes regular expressions, whose backslashes look like a path's."""
    quoted = sorted({pattern for pattern in patterns if without_paths(pattern) != pattern}, key=len, reverse=True)
    for number, pattern in enumerate(quoted):
        # What stands for a pattern may be a part of a path, so that a path around it is still found.
        text = text.replace(pattern, f"\0{number}\0")
    text = without_paths(text) or ""
    for number, pattern in enumerate(quoted):
        text = text.replace(f"\0{number}\0", pattern)
    return text
