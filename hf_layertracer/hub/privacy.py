"""What of a report may leave the machine."""

from __future__ import annotations

import re

from ..report import LayerTracerReport


# An absolute path of at least two parts, of any system; in an address, two slashes follow a colon.
_PATH = re.compile(
    r"(?<![\w:/\\.~])(?:~|[A-Za-z]:|\\)?[/\\](?:[^\s/\\'\"`<>|:;,()]+[/\\])+(?P<last>[^\s/\\'\"`<>|:;,()]*)"
)


def public_report(report: LayerTracerReport) -> LayerTracerReport:
    """A report as it may be published: of paths in its explanations only the last part is left.

    Explanations may quote an error, and an error may name a file. The probes' own texts stay as they are.

    Args:
        report ([`LayerTracerReport`]): The report, which is not changed.

    Returns:
        [`LayerTracerReport`]: A copy.
    """
    public = report.model_copy(deep=True)
    public.notes = [without_paths(note) for note in public.notes]
    public.lens.reason = without_paths(public.lens.reason)
    public.sensitivity.path_reason = without_paths(public.sensitivity.path_reason)
    if public.plan is not None:
        public.plan.reason = without_paths(public.plan.reason)
    return public


def without_paths(text: str | None) -> str | None:
    """A text with only the last part of each absolute path."""
    return text and _PATH.sub(lambda match: match["last"] or "...", text)
