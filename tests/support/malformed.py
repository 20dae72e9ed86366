"""Files that are not what they should be, and what is expected when they are opened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hf_layertracer.errors import LayerTracerError


NOT_JSON = {
    "empty": b"",
    "brace": b"{",
    "text": b"not json",
    "no utf-8": b"\xff\xfe\x00",
    "picture": b"\x89PNG\r\n\x1a\n",
    "page": b"<html><script>alert(1)</script>",
    "cut number": b"1e",
    "python": b"{'a': 1}",
    "cut": b'{"schema_version": 1',
    "deep": b"[" * 100_000,
    "huge number": b'{"schema_version": ' + b"9" * 5000 + b"}",
}
OTHER_JSON = {
    "null": b"null",
    "list": b"[]",
    "object": b"{}",
    "number": b"1",
    "string": b'"text"',
    "list of reports": b'[{"schema_version": 1}]',
    "configuration": b'{"model_type": "llama"}',
}


def refusal(call: Callable[..., Any], *arguments: Any) -> str:
    """The one line with which the package refuses something."""
    with pytest.raises(LayerTracerError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert message.strip()
    assert "\n" not in message
    assert len(message) < 500
    return message
