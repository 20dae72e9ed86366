"""The columns that probes can stand in, recognised by their names."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import LayerTracerError
from ..text import check_unicode
from .probe import Probe, whole_numbers


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Takes a row, its place, a random generator and the longest prompt in tokens; `None` where a row holds no probe.
Parser = Callable[[Mapping[str, Any], str, np.random.Generator, int], "Probe | None"]

# Text drawn from documents is cut at multiples of this many tokens: prompts of equal length share a batch.
_CUT_MULTIPLE = 16
_TEXT_COLUMNS = ("text", "content", "document")


class NoTokenizerError(LayerTracerError):
    """Text cannot be cut into probes without a tokenizer."""


def layout_of(
    row: Mapping[str, Any], place: str, tokenizer: PreTrainedTokenizerBase | None, text_column: str | None
) -> Parser:
    """The parser for rows that look like `row`.

    Args:
        row (`Mapping[str, Any]`): The first row.
        place (`str`): Where it stands.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): Needed for documents of text.
        text_column (`str`, *optional*): The column with the text, whatever the others are.

    Returns:
        `Callable`: Makes a probe of a row.

    Raises:
        NoTokenizerError: They are documents of text, and there is no tokenizer to cut them.
        LayerTracerError: No layout is known that has these columns.
    """
    columns = set(row)
    if text_column is None and {"prompt", "target"} <= columns:
        return _parse_pair
    if text_column is None and ({"question", "A", "answer"} <= columns or {"Question", "A", "Answer"} <= columns):
        return _parse_lettered_choices
    if text_column is None and {"question", "choices", "answerKey"} <= columns:
        return _parse_listed_choices
    if text_column is None and {"query", "choices", "gold"} <= columns:
        return _parse_continuations
    if text_column is None and "input_ids" in columns:
        return _parse_tokens
    column = text_column or next((name for name in _TEXT_COLUMNS if name in columns), None)
    if column is None or column not in columns:
        wanted = f"no column {text_column!r}" if text_column else "no layout of probes that is known"
        raise LayerTracerError(
            f"{place}: {wanted}; its columns are {sorted(map(str, columns))}. Known layouts: prompt and target; "
            "question, A, B, ..., answer (C-Eval, CMMLU); question, choices, answerKey (ARC); query, choices, gold "
            "(lm-eval); input_ids; or text (name its column with text_column)."
        )
    if tokenizer is None:
        raise NoTokenizerError(
            f"{place}: drawing probes from text needs a tokenizer: load_probes(..., tokenizer=...)."
        )

    def parse_text(row: Mapping[str, Any], place: str, rng: np.random.Generator, longest: int) -> Probe | None:
        text = row.get(column)
        if not isinstance(text, str):
            raise LayerTracerError(f"{place}: column {column!r} holds {type(text).__name__}, not text.")
        check_unicode(text, place)
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
        if not row[key].strip() and (key == "prompt" or not row[key]):
            raise LayerTracerError(f"{place}: the {key} is empty.")
    return _probe(row["prompt"], row["target"], row, "default", place)


def _parse_lettered_choices(row: Mapping[str, Any], place: str, *_: Any) -> Probe:
    question, answer = row.get("question") or row.get("Question"), str(row.get("answer") or row.get("Answer") or "")
    letters = [letter for letter in "ABCDEFGH" if row.get(letter) is not None]
    return _choice_probe(question, letters, [row[letter] for letter in letters], answer.strip(), row, place)


def _parse_listed_choices(row: Mapping[str, Any], place: str, *_: Any) -> Probe:
    choices = row.get("choices")
    if not isinstance(choices, Mapping) or not all(_is_list(choices.get(name)) for name in ("label", "text")):
        raise LayerTracerError(f"{place}: 'choices' must hold lists 'label' and 'text', as in ARC.")
    if len(choices["label"]) != len(choices["text"]):
        raise LayerTracerError(
            f"{place}: 'choices' holds {len(choices['label'])} labels, {len(choices['text'])} texts."
        )
    answer = str(row.get("answerKey"))
    return _choice_probe(row.get("question"), choices["label"], choices["text"], answer, row, place)


def _parse_continuations(row: Mapping[str, Any], place: str, *_: Any) -> Probe:
    """lm-evaluation-harness: the answers themselves follow the question, after a space."""
    query, gold = row.get("query"), row.get("gold")
    choices: Any = row.get("choices")
    if isinstance(choices, str):  # a column of CSV
        try:
            choices = json.loads(choices)
        except (ValueError, RecursionError):
            choices = None
    if not isinstance(query, str) or not query.strip():
        raise LayerTracerError(f"{place}: 'query' is no question.")
    if not _is_list(choices) or not len(choices) or not all(isinstance(c, str) and c.strip() for c in choices):
        raise LayerTracerError(f"{place}: 'choices' must be a list of texts, as in lm-eval, none of them empty.")
    try:
        (number,) = whole_numbers([int(gold) if isinstance(gold, str) else gold])
    except ValueError:
        number = -1
    if not 0 <= number < len(choices):
        raise LayerTracerError(
            f"{place}: 'gold' must say which of the {len(choices)} choices is right, not {gold!r:.40}."
        )
    space = " " if query[-1].isascii() and not query[-1].isspace() else ""
    options = [choice if choice[0].isspace() else space + choice for choice in choices]
    return _probe(query, options[number], row, "multiple-choice", place, options)


def _choice_probe(question: Any, labels: Sequence, options: Sequence, answer: str, row: Mapping, place: str) -> Probe:
    if not isinstance(question, str) or not question.strip():
        raise LayerTracerError(f"{place}: there is no question.")
    names = [str(label) for label in labels]
    if answer not in names:
        raise LayerTracerError(f"{place}: the answer {answer!r:.40} is none of the labels {names!s:.80}.")
    for name, option in zip(names, options, strict=True):
        if option is None or not str(option).strip():
            raise LayerTracerError(f"{place}: the option {name!r:.40} is empty.")
    chinese = any("\u4e00" <= character <= "\u9fff" for character in question)
    lines = [question.strip(), *(f"{name}. {option}" for name, option in zip(names, options, strict=True))]
    # The label follows "答案：" directly, but "Answer:" with a space.
    lines.append("答案：" if chinese else "Answer:")
    space = "" if chinese else " "
    return _probe("\n".join(lines), space + answer, row, "multiple-choice", place, [space + name for name in names])


def _probe(prompt: str, target: str, row: Mapping, task: str, place: str, choices: Sequence[str] = ()) -> Probe:
    task = str(row.get("task") or task)
    for text in (prompt, target, task, *choices):
        check_unicode(text, place)
    return Probe(prompt, target, task, tuple(choices))


def _is_list(values: Any) -> bool:
    return not isinstance(values, str | Mapping) and hasattr(values, "__len__") and hasattr(values, "__getitem__")


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
        return whole_numbers(values)
    except ValueError as error:
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
