"""Docstrings as mkdocstrings reads them: Hugging Face marks types up, and Google's style, which it parses, does not."""

from __future__ import annotations

import re
from typing import Any

import griffe


PARAMETER = re.compile(r"^( +[\w*][\w*, ]* \()(.+)(\):)", re.MULTILINE)
RETURNED = re.compile(r"^( +)((?:\[?`[^`]+`\]?(?: or )?)+):(?= )", re.MULTILINE)


class PlainTypes(griffe.Extension):
    """Turns ``name (`int`, *optional*, defaults to `1`):`` into `name (int, optional):`; the default is in the signature."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrites the docstring of an object before anybody parses it."""
        if obj.docstring is None:
            return
        text = PARAMETER.sub(lambda match: match[1] + _plain(match[2]) + match[3], obj.docstring.value)
        obj.docstring.value = RETURNED.sub(lambda match: f"{match[1]}{_plain(match[2])}:", text)


def _plain(text: str) -> str:
    text = re.sub(r", defaults to .*", "", text)
    return re.sub(r"\[?`~?([^`]+)`\]?", r"\1", text).replace("*optional*", "optional").replace(" or ", " | ")
