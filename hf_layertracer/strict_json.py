"""JSON in which no key stands twice: of two values, nothing says which one is meant."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any


def parse_json(content: bytes) -> Any:
    """Parses the bytes of a JSON file.

    Args:
        content (`bytes`): The file's content, in UTF-8.

    Returns:
        `Any`: What it holds.

    Raises:
        ValueError: It is not JSON or not UTF-8, or a key stands twice in one object.
        RecursionError: It is nested too deeply.
    """
    return json.loads(content.decode("utf-8"), object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice[:80]!r} stands twice in one object")
    return made
