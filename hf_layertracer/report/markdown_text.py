"""Pieces of Markdown: escaped text, lists, tables, numbers.

Every string of a report may come from someone else's file on the Hub, so none of them reaches a card unescaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ..text import one_line, with_error


_ESCAPES = str.maketrans(
    {char: f"\\{char}" for char in "\\`*_[]{}#~!@"}
    | {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "|": "&#124;", "$": "&#36;"}
)
_PROSE_LIMIT = 1000
_NAME_LIMIT = 100


def prose(text: str) -> str:
    """A string of the report as literal text: no markup, link, HTML or formula comes of it."""
    line = one_line(text, _PROSE_LIMIT).translate(_ESCAPES)
    # Bare addresses turn into links, and these openings into lists and rules.
    line = re.sub(r":(?=//)|(?<=www)\.", r"\\\g<0>", line, flags=re.IGNORECASE)
    return re.sub(r"^([0-9]*)([-+=.)])", r"\1\\\2", line)


def name(text: object) -> str:
    """An identifier of the report as a code span, or as escaped text where a code span would not hold it."""
    line = one_line(str(text), _NAME_LIMIT)
    if not line:
        return "(empty)"
    # A code span cannot escape the first two of these in a table, nor an end marker for `put_section`.
    return prose(line) if re.search(r"[`|<>]", line) else f"`{line}`"


def bullets(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def optional(value: float | None) -> str | None:
    return None if value is None else number(value)


def percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def saved(part: int, full: int) -> str:
    return percent(1 - part / full) if full else "-"


def value(mean: float, stderr: float | None, known: bool) -> str:
    if known and stderr is not None:
        return with_error(mean, stderr)
    return f"{with_error(mean)} (standard error not known)"


def layer(layer: float | None) -> str:
    return "-" if layer is None else f"{layer:g}"


def span(limits: tuple[float, float] | None) -> str:
    return "-" if limits is None else f"{limits[0]:g} to {limits[1]:g}"
