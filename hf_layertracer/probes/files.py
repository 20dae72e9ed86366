"""Rows of files with probes, each with the place to name when it is wrong."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import LayerTracerError


SUFFIXES = (".jsonl", ".json", ".csv")


@dataclass(frozen=True)
class Row:
    """A row of a file.

    Args:
        values (`Mapping[str, Any]`): The columns.
        place (`str`): File and line.
    """

    values: Mapping[str, Any]
    place: str


def check_probe_files(path: Path) -> None:
    """Refuses a path without probe files.

    Args:
        path (`Path`): A file or folder.

    Raises:
        LayerTracerError: There is nothing there, or nothing of a known kind.
    """
    if os.path.isdir(path):
        if not _inside(path):
            raise LayerTracerError(f"The folder {path} holds no .jsonl, .json or .csv file with probes.")
    elif not os.path.isfile(path):
        raise LayerTracerError(f"No such probe file: {path}.")
    elif path.suffix.lower() not in SUFFIXES:
        raise LayerTracerError(f"{path} is no file of probes: these are JSON lines (.jsonl), .json or .csv.")


def read_rows(path: Path) -> Iterator[Row]:
    """Reads a file, or all files of a folder.

    Args:
        path (`Path`): The file or folder.

    Yields:
        [`Row`]: The rows in order.

    Raises:
        LayerTracerError: A file cannot be read; the message names the line.
    """
    check_probe_files(path)
    if os.path.isdir(path):
        for file in _inside(path):
            yield from read_rows(file)
        return
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise LayerTracerError(f"{path} is not UTF-8 text: {error}.") from error
    except OSError as error:
        raise LayerTracerError(f"Could not read {path}: {error.strerror or error}.") from error
    if path.suffix.lower() == ".csv":
        yield from _table(path, text)
    elif path.suffix.lower() == ".json" and text.lstrip().startswith("["):
        yield from _array(path, text)
    else:
        yield from _lines(path, text)


def _inside(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _table(path: Path, text: str) -> Iterator[Row]:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    try:
        for values in rows:
            place = f"{path}, line {rows.line_num}"
            if None in values:
                header = len(rows.fieldnames or ())
                raise LayerTracerError(
                    f"{place} has {header + len(values[None])} values, but the header names {header} columns: a text with "
                    'a comma in it needs quotes ("...").'
                )
            # Subjects in C-Eval and CMMLU are files: the name of the file is the task.
            yield Row({"task": path.stem, **values}, place)
    except csv.Error as error:
        raise LayerTracerError(f"{path}, line {rows.reader.line_num} is not CSV: {error}.") from error


def _lines(path: Path, text: str) -> Iterator[Row]:
    # Not splitlines(): JSON may hold U+2028 and U+0085 as they are.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            place = f"{path}, line {number}"
            yield Row(_object(_parsed(line, path, first_line=number), place), place)


def _array(path: Path, text: str) -> Iterator[Row]:
    for number, values in enumerate(_parsed(text, path)):
        place = f"{path}, item {number}"
        yield Row(_object(values, place), place)


def _parsed(text: str, path: Path, first_line: int = 1) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise LayerTracerError(f"{path}, line {line} is not JSON: {error.msg} at column {error.colno}.") from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, brackets in thousands of brackets
        raise LayerTracerError(
            f"{path}, from line {first_line} on: no JSON that can be read ({error!s:.100})."
        ) from error


def _object(values: Any, place: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise LayerTracerError(f"{place}: expected an object, found {type(values).__name__}.")
    return values
