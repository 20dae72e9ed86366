"""Multiple choice in local files: the CSV layouts of C-Eval and CMMLU, and JSON lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import LayerTracerError
from ..probes.files import read_rows
from ..text import check_unicode


Row = dict[str, Any]

_LETTERS = ("A", "B", "C", "D")


@dataclass(frozen=True)
class Subject:
    """A set of questions that share a prompt.

    Args:
        name (`str`): Its name: a subject, or that of the file.
        questions (`list[dict]`): What is asked.
        examples (`list[dict]`): Solved questions for few-shot prompts, in order.
    """

    name: str
    questions: list[Row]
    examples: list[Row] = field(default_factory=list)


@dataclass(frozen=True)
class LocalTask:
    """A benchmark in local files.

    Args:
        name (`str`): Name of the folder or the file without its ending.
        layout (`str`): `"ceval"`, `"cmmlu"`, `"choices"` or `"pairs"`.
        subjects (`list[Subject]`): At least one, each with at least one question.
    """

    name: str
    layout: str
    subjects: list[Subject]


def read_local_task(path: str, num_fewshot: int = 0) -> LocalTask:
    """Reads a benchmark. Its layout is recognised by its files and columns.

    * C-Eval: a folder with `<subject>_val.csv` and `<subject>_dev.csv` anywhere below it; columns `question`, `A` to
      `D`, `answer`.
    * CMMLU: a folder with `test/<subject>.csv` and `dev/<subject>.csv`; columns `Question`, `A` to `D`, `Answer`.
    * A `.jsonl` file, or a folder of them, each a subject: `query`, `choices` and `gold`, the index of the right choice;
      or minimal pairs, `sentence_good` and `sentence_bad`. For few-shot prompts, the first questions of a file become
      the examples and are not asked; minimal pairs have no prompt.

    Args:
        path (`str`): The folder or file.
        num_fewshot (`int`, *optional*, defaults to `0`): How many solved examples are needed.

    Returns:
        [`LocalTask`]: The benchmark.

    Raises:
        LayerTracerError: There is no such layout, a set is empty, two files name one subject, a column or an answer does
            not fit, or there are too few examples.
    """
    source = Path(path)
    ceval = sorted(source.rglob("*_val.csv"))
    cmmlu = sorted(source.glob("test/*.csv"))
    lines = [source] if source.is_file() and source.suffix == ".jsonl" else sorted(source.glob("*.jsonl"))
    if ceval:
        examples = _by_subject(sorted(source.rglob("*_dev.csv")), "_dev")
        files = _by_subject(ceval, "_val")
        layout, subjects = "ceval", _csv_subjects(files, examples, ("question", *_LETTERS, "answer"))
    elif cmmlu:
        examples, files = _by_subject(sorted(source.glob("dev/*.csv"))), _by_subject(cmmlu)
        layout, subjects = "cmmlu", _csv_subjects(files, examples, ("Question", *_LETTERS, "Answer"))
    elif lines:
        layout, subjects = _jsonl_subjects(lines, num_fewshot)
    else:
        raise LayerTracerError(
            f"{path} is no task: neither a .jsonl file nor a folder with <subject>_val.csv (C-Eval), "
            "test/<subject>.csv (CMMLU) or .jsonl files."
        )
    for subject in subjects:
        if not subject.questions:
            raise LayerTracerError(f"{path}: {subject.name} holds no questions to evaluate on.")
        if len(subject.examples) < num_fewshot and layout != "pairs":
            raise LayerTracerError(
                f"{path}: {subject.name} holds {len(subject.examples)} examples for a prompt with {num_fewshot}."
            )
    return LocalTask(source.resolve().name.removesuffix(".jsonl"), layout, subjects)


def _by_subject(files: list[Path], ending: str = "") -> dict[str, Path]:
    """Files by the subject in their names; of two files for one subject, nothing says which one is meant."""
    found: dict[str, Path] = {}
    for file in files:
        first = found.setdefault(file.stem.removesuffix(ending), file)
        if first is not file:
            raise LayerTracerError(
                f"{first} and {file} name the same subject: rename one, or move it out of the task."
            )
    return found


def _csv_subjects(files: dict[str, Path], examples: dict[str, Path], columns: tuple[str, ...]) -> list[Subject]:
    return [
        Subject(name, _read_csv(file, columns), _read_csv(examples[name], columns) if name in examples else [])
        for name, file in files.items()
    ]


def _read_csv(path: Path, columns: tuple[str, ...]) -> list[Row]:
    """Rows with the columns named and no others: the dev files of C-Eval have one more than the val files."""
    rows = []
    # Some copies of these files begin with a byte order mark.
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            read = list(csv.DictReader(file))
    except OSError as error:
        raise LayerTracerError(f"Could not read {path}: {error.strerror or error}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise LayerTracerError(f"{path} cannot be read: {error}.") from error
    for number, row in enumerate(read, start=1):
        missing = [column for column in columns if row.get(column) is None]
        if missing:
            raise LayerTracerError(f"{path}, row {number}: no column {', '.join(missing)}.")
        if row[columns[-1]].strip() not in _LETTERS:
            raise LayerTracerError(f"{path}, row {number}: the answer {row[columns[-1]]!r} is none of A, B, C, D.")
        rows.append({column: row[column] for column in columns} | {columns[-1]: row[columns[-1]].strip()})
    return rows


def _jsonl_subjects(files: list[Path], num_fewshot: int) -> tuple[str, list[Subject]]:
    layouts, subjects = set(), []
    for file in files:
        rows = []
        for row in read_rows(file):
            layouts.add(_jsonl_layout(row.values, row.place))
            rows.append(dict(row.values))
        examples = 0 if layouts == {"pairs"} else num_fewshot
        subjects.append(Subject(file.stem, rows[examples:], rows[:examples]))
    if len(layouts) > 1:
        raise LayerTracerError(f"{files[0].parent}: questions and minimal pairs are mixed in one task.")
    return layouts.pop() if layouts else "choices", subjects


def _jsonl_layout(row: Mapping[str, Any], place: str) -> str:
    check_unicode(json.dumps(row, ensure_ascii=False), place)
    if isinstance(row.get("sentence_good"), str) and isinstance(row.get("sentence_bad"), str):
        return "pairs"
    query, choices, gold = (row.get(name) for name in ("query", "choices", "gold"))
    if not isinstance(query, str) or not isinstance(choices, list) or len(choices) < 2:
        raise LayerTracerError(f"{place}: needs query, choices and gold, or sentence_good and sentence_bad.")
    # To Python, true is the number 1.
    if not isinstance(gold, int) or isinstance(gold, bool) or not 0 <= gold < len(choices):
        raise LayerTracerError(f"{place}: gold is {gold!r}, no index of one of {len(choices)} choices.")
    return "choices"
