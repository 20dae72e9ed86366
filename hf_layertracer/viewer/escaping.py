"""Text of a report on its way to a page: one line, not too long, and nothing in it is markup."""

from __future__ import annotations

import html
import re

from ..text import one_line


# Braces and dollars are placeholders to the template engine inside the page.
_PLACEHOLDERS = str.maketrans({char: f"&#{ord(char)};" for char in "{}$`"})


def plain(value: object, limit: int = 80) -> str:
    """A single line for where text is text: inputs, choices, cells of a table file."""
    return one_line(str(value), limit)


def for_html(value: object, limit: int = 80) -> str:
    """A single line with nothing in it that HTML, or the templates of a page, would take for more than text."""
    return html.escape(plain(value, limit)).translate(_PLACEHOLDERS)


def for_plotly(value: object, limit: int = 40) -> str:
    """A single line for titles, names and hover texts of Plotly, which reads a few tags and entities of HTML."""
    return html.escape(plain(value, limit), quote=False)


def for_file_name(value: object, limit: int = 60) -> str:
    """Letters of any script, digits, dots and dashes: a name that stays in its folder on every system."""
    return re.sub(r"[^\w.-]+", "-", plain(value, limit)).strip(".-") or "report"
