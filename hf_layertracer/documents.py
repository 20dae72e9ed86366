"""Text files as documents, one at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from .errors import LayerTracerError
from .text import check_unicode


TEXT_COLUMNS = ("text", "content", "document")


def read_documents(path: str | Path) -> Iterator[str]:
    """Reads the documents of a file.

    A `.jsonl` file holds one document a line, under `text`, `content` or `document`; any other file is one document of
    UTF-8 text.

    Args:
        path (`str` or `Path`): The file.

    Yields:
        `str`: Documents with at least one character that is no space.

    Raises:
        LayerTracerError: The file cannot be read, is not UTF-8, or a line holds no text or half a character.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            if path.suffix == ".jsonl":
                for number, line in enumerate(file, start=1):
                    if line.strip() and (document := _text(line, f"{path}, line {number}")).strip():
                        yield document
            elif (document := file.read()).strip():
                yield document
    except OSError as error:
        raise LayerTracerError(f"Could not read {path}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise LayerTracerError(f"{path} is no UTF-8 text: {error.reason} at byte {error.start}.") from error


def _text(line: str, place: str) -> str:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise LayerTracerError(f"{place} is no JSON: {error.msg}.") from error
    for column in TEXT_COLUMNS:
        if isinstance(row, dict) and isinstance(row.get(column), str):
            check_unicode(row[column], place)
            return row[column]
    raise LayerTracerError(f"{place} holds no text under any of {', '.join(TEXT_COLUMNS)}.")
