"""Probes: prompts with the text that should follow, and where they can be read from."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import LayerTracerError


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


# Text drawn from documents is cut at multiples of this many tokens: prompts of equal length share a batch.
_CUT_MULTIPLE = 16
_TEXT_COLUMNS = ("text", "content", "document")


@dataclass(frozen=True)
class Probe:
    """A prompt and what should follow it.

    Args:
        prompt (`str` or `tuple[int, ...]`): The prompt, as text or as token ids.
        target (`str` or `int`):
            The text that literally follows the prompt (so an English word begins with its space), or a token id. Only
            its first token is looked for.
        task (`str`, *optional*, defaults to `"default"`): Probes of one task are summarised together.
    """

    prompt: str | tuple[int, ...]
    target: str | int
    task: str = "default"


def builtin_probes() -> list[Probe]:
    """The probes that ship with the package: facts, grammar, everyday knowledge and code, in English and Chinese."""
    path = files("hf_layertracer") / "data" / "probes.jsonl"
    return [Probe(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def load_probes(
    source: str | Path | Iterable[Mapping[str, Any]] | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    text_column: str | None = None,
    max_probes: int | None = None,
    max_prompt_tokens: int = 64,
    seed: int = 0,
) -> list[Probe]:
    """Reads probes from a file or draws them from a dataset.

    The layout is recognised by its columns: `prompt` and `target`; the multiple-choice columns of C-Eval, CMMLU and ARC;
    token ids (`input_ids`, with `labels` of -100 where no target may lie); or text, where each document is cut at a
    seeded position and the next token is the target.

    Args:
        source (`str`, `Path` or iterable of mappings, *optional*):
            A `.jsonl`, `.json` or `.csv` file, a folder of such files, or a dataset: anything that yields
            dictionaries, streaming or not. The probes of the package by default.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): Needed for documents of text.
        text_column (`str`, *optional*): The column with the text; found by its name by default.
        max_probes (`int`, *optional*): How many to take: a seeded sample, or the first ones of a stream.
        max_prompt_tokens (`int`, *optional*, defaults to `64`): Longest prompt cut out of a document, in tokens.
        seed (`int`, *optional*, defaults to `0`): Seed of the sample and of the cuts.

    Returns:
        `list[Probe]`: The probes, never empty.

    Raises:
        LayerTracerError: The source cannot be read, has no known layout or holds no usable probe.
    """
    if max_probes is not None and max_probes < 1:
        raise LayerTracerError(f"max_probes must be at least 1, not {max_probes}.")
    rng = np.random.default_rng(seed)
    if source is None:
        return list(_sample(builtin_probes(), max_probes, rng))
    rows: Iterable[Any]
    if isinstance(source, str | Path):
        name, rows = str(source), list(_read_files(Path(source)))
    else:
        name, rows = type(source).__name__, source
    rows = _sample(rows, max_probes, rng)
    probes = []
    for number, (place, row) in enumerate(_located(rows, name), start=1):
        if number == 1:
            parse = _layout(row, place, tokenizer, text_column)
        probe = parse(row, place, rng, max_prompt_tokens)
        if probe is not None:
            probes.append(probe)
    if not probes:
        raise LayerTracerError(f"No probe in {name}: it is empty, or every document in it is shorter than two tokens.")
    return probes


# -- files -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    """A row of a file, with the place to name when it is wrong."""

    values: Mapping[str, Any]
    place: str


def _read_files(path: Path) -> Iterator[_Row]:
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.suffix in (".jsonl", ".json", ".csv"))
        if not inside:
            raise LayerTracerError(f"The folder {path} holds no .jsonl, .json or .csv file with probes.")
        for file in inside:
            yield from _read_files(file)
        return
    if not path.is_file():
        raise LayerTracerError(f"No such probe file: {path}.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise LayerTracerError(f"{path} is not UTF-8 text: {error}.") from error
    if path.suffix == ".csv":
        # Subjects in C-Eval and CMMLU are files: the name of the file is the task.
        rows = csv.DictReader(io.StringIO(text, newline=""))
        try:
            for values in rows:
                yield _Row({"task": path.stem, **values}, f"{path}, line {rows.line_num}")
        except csv.Error as error:
            raise LayerTracerError(f"{path}, line {rows.reader.line_num} is not CSV: {error}.") from error
        return
    if path.suffix == ".json" and text.lstrip().startswith("["):
        yield from _read_array(path, text)
        return
    # Not splitlines(): JSON may hold U+2028 and U+0085 as they are.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise LayerTracerError(
                f"{path}, line {number} is not JSON: {error.msg} at column {error.colno}."
            ) from error
        if not isinstance(values, dict):
            raise LayerTracerError(f"{path}, line {number}: expected an object, found {type(values).__name__}.")
        yield _Row(values, f"{path}, line {number}")


def _read_array(path: Path, text: str) -> Iterator[_Row]:
    try:
        array = json.loads(text)
    except json.JSONDecodeError as error:
        raise LayerTracerError(
            f"{path}, line {error.lineno} is not JSON: {error.msg} at column {error.colno}."
        ) from error
    for number, values in enumerate(array):
        if not isinstance(values, dict):
            raise LayerTracerError(f"{path}, item {number}: expected an object, found {type(values).__name__}.")
        yield _Row(values, f"{path}, item {number}")


def _located(rows: Iterable[Any], name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, row in enumerate(rows):
        if isinstance(row, _Row):
            yield row.place, row.values
        elif isinstance(row, Mapping):
            yield f"{name}, row {number}", row
        else:
            raise LayerTracerError(f"{name}, row {number}: expected a mapping, found {type(row).__name__}.")


def _sample(rows: Any, count: int | None, rng: np.random.Generator) -> Iterable[Any]:
    """A seeded sample in the original order; of a stream, which has no length, the first rows."""
    if count is None:
        return rows
    if not hasattr(rows, "__len__"):
        return islice(iter(rows), count)
    if len(rows) <= count:
        return rows
    return [rows[int(index)] for index in sorted(rng.choice(len(rows), count, replace=False))]


# -- layouts ---------------------------------------------------------------------------------------------------------


def _layout(row: Mapping[str, Any], place: str, tokenizer, text_column: str | None):
    """The parser for rows that look like `row`."""
    columns = set(row)
    if text_column is None and {"prompt", "target"} <= columns:
        return _parse_pair
    if text_column is None and ({"question", "A", "answer"} <= columns or {"Question", "A", "Answer"} <= columns):
        return _parse_lettered_choices
    if text_column is None and {"question", "choices", "answerKey"} <= columns:
        return _parse_listed_choices
    if text_column is None and "input_ids" in columns:
        return _parse_tokens
    column = text_column or next((name for name in _TEXT_COLUMNS if name in columns), None)
    if column is None or column not in columns:
        wanted = f"no column {text_column!r}" if text_column else "no layout of probes that is known"
        raise LayerTracerError(
            f"{place}: {wanted}; its columns are {sorted(map(str, columns))}. Known layouts: prompt and target; "
            "question, A, B, ..., answer (C-Eval, CMMLU); question, choices, answerKey (ARC); input_ids; or text (name "
            "its column with text_column)."
        )
    if tokenizer is None:
        raise LayerTracerError(
            f"{place}: drawing probes from text needs a tokenizer: load_probes(..., tokenizer=...)."
        )

    def parse_text(row: Mapping[str, Any], place: str, rng: np.random.Generator, longest: int) -> Probe | None:
        text = row.get(column)
        if not isinstance(text, str):
            raise LayerTracerError(f"{place}: column {column!r} holds {type(text).__name__}, not text.")
        # A few characters make a token: there is no need to tokenize a whole book for its first sentences.
        ids = tokenizer(text[: 32 * (longest + 1)], truncation=False, verbose=False)["input_ids"]
        specials = set(tokenizer.all_special_ids)
        return _cut(ids, [index > 0 and ids[index] not in specials for index in range(len(ids))], rng, longest, row)

    return parse_text


def _parse_pair(row: Mapping[str, Any], place: str, *_: Any) -> Probe:
    for key in ("prompt", "target"):
        if not isinstance(row.get(key), str):
            raise LayerTracerError(
                f"{place}: {key!r} is missing or not text. A probe is {{'prompt': ..., 'target': ...}}."
            )
    return Probe(row["prompt"], row["target"], str(row.get("task") or "default"))


def _parse_lettered_choices(row: Mapping[str, Any], place: str, *_: Any) -> Probe:
    question, answer = row.get("question") or row.get("Question"), str(row.get("answer") or row.get("Answer") or "")
    letters = [letter for letter in "ABCDEFGH" if row.get(letter) is not None]
    return _choice_probe(question, letters, [row[letter] for letter in letters], answer.strip(), row, place)


def _parse_listed_choices(row: Mapping[str, Any], place: str, *_: Any) -> Probe:
    choices = row.get("choices")
    if not isinstance(choices, Mapping) or not {"label", "text"} <= set(choices):
        raise LayerTracerError(f"{place}: 'choices' must hold lists 'label' and 'text', as in ARC.")
    if len(choices["label"]) != len(choices["text"]):
        raise LayerTracerError(
            f"{place}: 'choices' holds {len(choices['label'])} labels, {len(choices['text'])} texts."
        )
    answer = str(row.get("answerKey"))
    return _choice_probe(row.get("question"), choices["label"], choices["text"], answer, row, place)


def _choice_probe(question: Any, labels: Sequence, options: Sequence, answer: str, row: Mapping, place: str) -> Probe:
    if not question or answer not in [str(label) for label in labels]:
        raise LayerTracerError(f"{place}: the answer {answer!r} is none of the labels {list(labels)}, or no question.")
    chinese = any("\u4e00" <= character <= "\u9fff" for character in str(question))
    lines = [str(question).strip(), *(f"{label}. {option}" for label, option in zip(labels, options, strict=True))]
    # The label follows "答案：" directly, but "Answer:" with a space.
    lines.append("答案：" if chinese else "Answer:")
    return Probe("\n".join(lines), answer if chinese else f" {answer}", str(row.get("task") or "multiple-choice"))


def _parse_tokens(row: Mapping[str, Any], place: str, rng: np.random.Generator, longest: int) -> Probe | None:
    ids = _integers(row.get("input_ids"), "input_ids", place)
    # Labels of another kind (a class, say) do not say where a target may lie.
    labels = _integers(row["labels"], "labels", place) if _is_parallel(row.get("labels"), ids) else ids
    mask = row.get("attention_mask")
    mask = _integers(mask, "attention_mask", place) if _is_parallel(mask, ids) else [1] * len(ids)
    labels = [label for label, real in zip(labels, mask, strict=True) if real]
    ids = [token for token, real in zip(ids, mask, strict=True) if real]
    allowed = [index > 0 and label != -100 for index, label in enumerate(labels)]
    return _cut(ids, allowed, rng, longest, row)


def _is_parallel(values: Any, ids: list[int]) -> bool:
    """Whether a column holds one value for every token; a tensor without dimensions has a length that it denies."""
    return getattr(values, "ndim", 1) == 1 and hasattr(values, "__len__") and len(values) == len(ids)


def _integers(values: Any, column: str, place: str) -> list[int]:
    try:
        return [int(value) for value in values]
    except (TypeError, ValueError, RuntimeError) as error:  # arrays and tensors fail with the latter two
        raise LayerTracerError(f"{place}: {column!r} is missing or not one list of integers.") from error


def _cut(ids: list[int], allowed: list[bool], rng: np.random.Generator, longest: int, row: Mapping) -> Probe | None:
    """Cuts a document at a seeded position where a target may lie; `None` where there is no such position."""
    positions = np.flatnonzero(allowed)
    even = positions[(positions % _CUT_MULTIPLE == 0) & (positions <= longest)]
    positions = even if len(even) else positions
    if not len(positions):
        return None
    cut = int(rng.choice(positions))
    return Probe(tuple(ids[max(0, cut - longest) : cut]), int(ids[cut]), str(row.get("task") or "text"))
