"""Removes paths of this machine from what is published."""

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
    for diagnosis in public.diagnoses:
        diagnosis.notes = [without_paths(note) for note in diagnosis.notes]
        if diagnosis.lens.reason is not None:
            diagnosis.lens.reason = without_paths(diagnosis.lens.reason)
        for sensitivity in diagnosis.sensitivities.values():
            if sensitivity.path_reason is not None:
                sensitivity.path_reason = without_paths(sensitivity.path_reason)
    for record in public.plans:
        record.plan.reason = without_paths(record.plan.reason)
    return public


def without_paths(text: str) -> str:
    """A text with only the last part of each absolute path."""
    return _PATH.sub(lambda match: match["last"] or "...", text)
