"""Opens reports, which are someone else's files: from this machine or from an upload.

A file's size is checked before it is parsed, and only the report file itself is read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import LayerTracerError, ReportNotFoundError
from ..report import REPORT_FILE, LayerTracerReport
from ..strict_json import parse_json
from .escaping import plain
from .hub_places import hub_place


# A report of 100 layers and 1,000 probes takes 4 MiB.
MAX_BYTES = 16 * 2**20
# Brackets and braces, of which each costs the parser more memory than the file it stands in.
_MAX_BRACKETS = 1_000_000
_MAX_DEPTH = 40
_MAX_TEXT = 20_000
MAX_LAYERS = 1_000
_MAX_PARAMETERS = 100_000
_MAX_FOUND = 1_000
_MAX_FOLDERS = 20_000
_SURROGATE = re.compile("[\ud800-\udfff]")


def read_report(path: str | Path, name: str | None = None) -> LayerTracerReport:
    """Reads a report file that may be hostile.

    Args:
        path (`str` or `Path`): The file.
        name (`str`, *optional*): What to call it in an error; the file's name by default.

    Returns:
        [`LayerTracerReport`]: The report.

    Raises:
        LayerTracerError: It is too large, too deeply nested or no report.
    """
    path = Path(path)
    name = plain(name or path.name)
    return parse_report(read_bounded(path, name), name)


def read_bounded(path: Path, name: str | None = None) -> bytes:
    """Reads a file that may be anything, but not beyond a byte more than is opened.

    Args:
        path (`Path`): The file.
        name (`str`, *optional*): What to call it in an error; the file's name by default.

    Returns:
        `bytes`: Its content, or the beginning of one that is too large.

    Raises:
        LayerTracerError: It is not a regular file, or cannot be read.
    """
    name = plain(name or path.name)
    # Opening a pipe would wait for somebody to write into it.
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise LayerTracerError(f"Could not read {name}: it is not a regular file.")
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise LayerTracerError(f"Could not read {name}: {error.strerror or error}.") from error


def parse_report(content: bytes, name: str = "The report") -> LayerTracerReport:
    """Makes a report of the bytes of a file that may be hostile.

    Args:
        content (`bytes`): The file's content.
        name (`str`, *optional*): What to call it in an error.

    Returns:
        [`LayerTracerReport`]: The report.

    Raises:
        LayerTracerError: It is too large, too deeply nested or no report.
    """
    if len(content) > MAX_BYTES:
        raise LayerTracerError(f"{name} is too large: reports of up to {MAX_BYTES // 2**20} MiB are opened.")
    if content.count(b"[") + content.count(b"{") > _MAX_BRACKETS:
        raise LayerTracerError(f"{name} cannot be opened: it holds over {_MAX_BRACKETS:,} brackets.")
    try:
        parsed = parse_json(content)
    except (ValueError, RecursionError) as error:
        raise LayerTracerError(f"{name} is not a LayerTracer report: it is not JSON ({plain(error, 120)}).") from error
    _check_shape(parsed, name)
    report = LayerTracerReport.from_dict(parsed, name)
    if not report.is_measured:
        raise LayerTracerError(f"{name} holds a plan but no measurements: there is nothing to look at.")
    if report.num_layers > MAX_LAYERS:
        raise LayerTracerError(f"{name} has {report.num_layers} layers; up to {MAX_LAYERS} can be shown.")
    if sum(len(layer.parameters) for layer in report.model.layers) > _MAX_PARAMETERS:
        raise LayerTracerError(f"{name} names over {_MAX_PARAMETERS:,} parameters, more than can be planned for here.")
    return report


def _check_shape(parsed: object, name: str) -> None:
    """Level by level, so that no depth can exhaust the stack."""
    level = [parsed]
    for _ in range(_MAX_DEPTH):
        inner: list[object] = []
        for value in level:
            if isinstance(value, dict):
                inner += value
                inner += value.values()
            elif isinstance(value, list):
                inner += value
            elif isinstance(value, str) and len(value) > _MAX_TEXT:
                raise LayerTracerError(
                    f"{name} holds a text of {len(value):,} characters; up to {_MAX_TEXT:,} are shown."
                )
            elif isinstance(value, str) and _SURROGATE.search(value):
                raise LayerTracerError(f"{name} is not a LayerTracer report: it holds half a character.")
        level = [value for value in inner if isinstance(value, dict | list | str)]
        if not level:
            return
    raise LayerTracerError(f"{name} is not a LayerTracer report: it is nested over {_MAX_DEPTH} levels deep.")


# -- this machine ----------------------------------------------------------------------------------------------------


def find_reports(sources: Sequence[str | Path]) -> dict[str, Path | str]:
    """Finds the reports that the viewer is started with.

    Args:
        sources (`Sequence[str]`): Report files, folders (searched through, hidden ones and links left out) or ids of
            repositories on the Hub.

    Returns:
        `dict[str, Path | str]`: Files, and ids of what is no file or folder here, by the name to show.

    Raises:
        ReportNotFoundError: A folder holds no report, or a source is neither a path nor an id.
        LayerTracerError: A folder holds too many reports or folders.
    """
    found: dict[str, Path | str] = {}
    for source in sources:
        path = Path(source)
        if path.is_dir():
            inside = list(_walk(path))
            if not inside:
                raise ReportNotFoundError(f"The folder {path} holds no {REPORT_FILE}.")
            if len(inside) > _MAX_FOUND:
                raise LayerTracerError(
                    f"{path} holds {len(inside):,} reports; up to {_MAX_FOUND:,} are shown at once. Name fewer folders."
                )
            for file in inside:
                found[_unused(file.parent.resolve().name, found)] = file
        elif path.is_file():
            found[_unused(path.resolve().parent.name if path.name == REPORT_FILE else path.stem, found)] = path
        else:
            found[_unused(str(hub_place(str(source))), found)] = str(source)
    return found


def _walk(folder: Path) -> Iterator[Path]:
    for number, (place, folders, _) in enumerate(os.walk(folder)):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        path = Path(place) / REPORT_FILE
        if path.is_file() and not path.is_symlink():
            yield path
        if number >= _MAX_FOLDERS:
            raise LayerTracerError(
                f"{folder} holds over {_MAX_FOLDERS:,} folders, too many to search. Name the folders with reports."
            )


def _unused(label: str, taken: dict) -> str:
    label = plain(label, 60) or "report"
    numbered = (f"{label} ({number})" for number in range(2, len(taken) + 3))
    return label if label not in taken else next(name for name in numbered if name not in taken)
