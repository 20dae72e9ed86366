"""Reads probes from files, from rows and from what a caller may pass for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checks import whole_number
from ..errors import LayerTracerError
from .builtin import BUILTIN, builtin_probes
from .files import Row, read_rows
from .layouts import layout_of
from .probe import Probe


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_probes(
    source: str | Path | Iterable[Mapping[str, Any]] | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    text_column: str | None = None,
    max_probes: int | None = None,
    max_prompt_tokens: int = 64,
    shots: int = 0,
    seed: int = 0,
) -> list[Probe]:
    """Reads probes from a file or draws them from a dataset.

    The layout is recognised by its columns: `prompt` and `target`; the multiple-choice columns of C-Eval and CMMLU, of
    ARC, and of lm-evaluation-harness (`query`, `choices`, `gold`); token ids (`input_ids`, with `labels` of -100 where no
    target may lie); or text, where each document is cut at a seeded position and the next token is the target.

    Args:
        source (`str`, `Path` or iterable of mappings, *optional*):
            A `.jsonl`, `.json` or `.csv` file, a folder of such files, or a dataset: anything that yields
            dictionaries, streaming or not. By default `"builtin"`, the mixed probes of the package;
            `"builtin:structured"` are its 500 that ask for antonyms and synonyms.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): Needed for documents of text.
        text_column (`str`, *optional*): The column with the text; found by its name by default.
        max_probes (`int`, *optional*): How many to take: a seeded sample, or the first ones of a stream.
        max_prompt_tokens (`int`, *optional*, defaults to `64`): Longest prompt cut out of a document, in tokens.
        shots (`int`, *optional*, defaults to `0`):
            Few-shot: so many probes of each task, its first, are put before all others as examples and not asked.
        seed (`int`, *optional*, defaults to `0`): Seed of the sample and of the cuts.

    Returns:
        `list[Probe]`: The probes, never empty.

    Raises:
        LayerTracerError: The source cannot be read, has no known layout or holds no usable probe; the message names file
            and line.

    Example:

    ```python
    >>> from hf_layertracer import load_probes
    >>> load_probes([{"query": "2 + 2 =", "choices": ["4", "5"], "gold": 0}])[0].choices
    (' 4', ' 5')
    ```
    """
    whole_number("max_probes", max_probes)
    whole_number("max_prompt_tokens", max_prompt_tokens)
    whole_number("shots", shots, least=0)
    whole_number("seed", seed, least=0)
    rng = np.random.default_rng(seed)
    source = "builtin" if source is None else source
    if isinstance(source, str | Path) and str(source) in BUILTIN:
        return list(_sample(_with_examples(builtin_probes(str(source)), shots), max_probes, rng))
    rows: Iterable[Any]
    if isinstance(source, str | Path):
        name, rows = str(source), list(read_rows(Path(source)))
    else:
        name, rows = type(source).__name__, source
    if not shots:
        rows = _sample(rows, max_probes, rng)
    probes = []
    for number, (place, row) in enumerate(_located(rows, name), start=1):
        if number == 1:
            parse = layout_of(row, place, tokenizer, text_column)
        probe = parse(row, place, rng, max_prompt_tokens)
        if probe is not None:
            probes.append(probe)
    if shots:
        probes = list(_sample(_with_examples(probes, shots), max_probes, rng))
    if not probes:
        raise LayerTracerError(f"No probe in {name}: it is empty, or every document in it is shorter than two tokens.")
    return probes


def as_probes(given: Any = None, *, tokenizer: PreTrainedTokenizerBase | None = None, **options: Any) -> list[Probe]:
    """What a caller means by probes: probes, rows like `{"prompt": ..., "target": ...}`, a file, or nothing.

    Args:
        given (`Any`, *optional*): Probes, anything that [`load_probes`] takes, or the probes of the package by default.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): Needed for documents of text.
        options: As in [`load_probes`]; they hold for files and rows.

    Returns:
        `list[Probe]`: The probes.

    Raises:
        LayerTracerError: They cannot be read.
    """
    if given is None or isinstance(given, str | Path):
        return load_probes(given, tokenizer=tokenizer, **options)
    if isinstance(given, Probe | Mapping):
        given = [given]
    if not isinstance(given, Iterable):
        raise LayerTracerError(f"probes must be probes, rows or a file of them, not {type(given).__name__}.")
    given = given if hasattr(given, "__len__") and hasattr(given, "__getitem__") else list(given)
    kinds = {"probe" if isinstance(entry, Probe) else "row" for entry in given}
    if kinds == {"row"}:
        return load_probes(given, tokenizer=tokenizer, **options)
    if kinds == {"probe", "row"}:
        raise LayerTracerError("Some of these probes are Probe(...), others are not: give all in the same form.")
    return list(given)


def _located(rows: Iterable[Any], name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, row in enumerate(rows):
        if isinstance(row, Row):
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


def _with_examples(probes: list[Probe], shots: int) -> list[Probe]:
    """Puts the first probes of each task before all others of it, answered and a blank line apart."""
    if not shots:
        return probes
    by_task: dict[str, list[Probe]] = {}
    for probe in probes:
        if not isinstance(probe.prompt, str) or not isinstance(probe.target, str):
            raise LayerTracerError("Examples (shots) need probes of text with a prompt and a target of their own.")
        by_task.setdefault(probe.task, []).append(probe)
    for task, members in by_task.items():
        if len(members) <= shots:
            raise LayerTracerError(
                f"The task {task!r:.60} has {len(members)} probes: {shots} examples leave none to ask."
            )
    before = {
        task: "".join(f"{example.prompt}{example.target}\n\n" for example in members[:shots])
        for task, members in by_task.items()
    }
    seen = dict.fromkeys(by_task, 0)
    found = []
    for probe in probes:
        seen[probe.task] += 1
        if seen[probe.task] > shots:
            found.append(replace(probe, prompt=f"{before[probe.task]}{probe.prompt}"))
    return found
