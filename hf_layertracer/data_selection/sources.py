"""Corpora as streams of pieces of text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from datasets import IterableDataset, load_dataset

from ..documents import TEXT_COLUMNS, read_documents
from ..errors import LayerTracerError
from ..text import one_line


def stream_pieces(sources: list[str], max_characters: int) -> IterableDataset:
    """A corpus as a streaming dataset with a column `text`, in a fixed order.

    Args:
        sources (`list[str]`):
            `.txt` and `.jsonl` files, Parquet, CSV or Arrow files, and ids of datasets on the Hub, whose split `train` is
            read.
        max_characters (`int`): Longer documents are cut at ends of lines.

    Returns:
        `datasets.IterableDataset`: The pieces. Nothing of it is held in memory but the current document.
    """
    return IterableDataset.from_generator(
        _pieces_of, gen_kwargs={"sources": tuple(sources), "max_characters": max_characters}
    )


def cut_at_lines(lines: Iterable[str], max_characters: int) -> Iterator[str]:
    """Joins lines to pieces of at most `max_characters`; a longer line is cut.

    Args:
        lines (`Iterable[str]`): Lines with their ends.
        max_characters (`int`): Most characters of a piece.

    Yields:
        `str`: Pieces, which joined are the text again but for pieces of nothing but space.
    """
    piece = ""
    for line in lines:
        if piece and len(piece) + len(line) > max_characters:
            if piece.strip():
                yield piece
            piece = ""
        piece += line
        while len(piece) > max_characters:
            if piece[:max_characters].strip():
                yield piece[:max_characters]
            piece = piece[max_characters:]
    if piece.strip():
        yield piece


def _pieces_of(sources: tuple[str, ...], max_characters: int) -> Iterator[dict[str, str]]:
    for source in sources:
        for piece in _pieces(source, max_characters):
            yield {"text": piece}


def _pieces(source: str, max_characters: int) -> Iterator[str]:
    path = Path(source)
    if path.is_file() and path.suffix not in (".jsonl", ".parquet", ".csv", ".arrow"):
        # Line by line: a text file may be larger than memory.
        try:
            with path.open(encoding="utf-8", newline="") as file:
                yield from cut_at_lines(file, max_characters)
        except UnicodeDecodeError as error:
            raise LayerTracerError(f"{path} is no UTF-8 text: {error.reason}.") from error
        except OSError as error:
            raise LayerTracerError(f"Could not read {path}: {error.strerror or error}.") from error
        return
    documents = read_documents(path) if path.suffix == ".jsonl" else _columns(source)
    for document in documents:
        yield from cut_at_lines(document.splitlines(keepends=True), max_characters)


def _columns(source: str) -> Iterator[str]:
    path = Path(source)
    try:
        if path.is_file():
            rows = load_dataset(path.suffix[1:], data_files=source, split="train", streaming=True)
        else:
            rows = load_dataset(source, split="train", streaming=True)
        rows = iter(rows)
        first = list(islice(rows, 1))
    except Exception as error:  # no such dataset, no network, a format that its builder refuses
        raise LayerTracerError(f"Could not read the dataset {source}: {one_line(str(error), 200)}") from error
    for row in first:
        column = next((name for name in TEXT_COLUMNS if isinstance(row.get(name), str)), None)
        if column is None:
            raise LayerTracerError(f"{source} has no column of text: one of {', '.join(TEXT_COLUMNS)}.")
        yield row[column]
        yield from (other[column] for other in rows if isinstance(other[column], str))
