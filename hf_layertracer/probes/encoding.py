"""Probes as token ids, in batches of equal length."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import LayerTracerError
from ..text import check_unicode
from .probe import Probe, whole_numbers


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class EncodedProbe:
    """A probe as the model sees it.

    Args:
        input_ids (`tuple[int, ...]`): The prompt's token ids, special tokens included.
        target_id (`int`): The token whose probability is read.
        task (`str`): The probe's task.
        choice_ids (`tuple[int, ...]`, *optional*):
            First tokens of all choices of a question; empty where there are none, or where they cannot be told apart.
        moved (`bool`, *optional*, defaults to `False`): Whether the target had merged with the end of the prompt.
    """

    input_ids: tuple[int, ...]
    target_id: int
    task: str
    choice_ids: tuple[int, ...] = ()
    moved: bool = False


def encode_probes(
    probes: Sequence[Probe], tokenizer: PreTrainedTokenizerBase | None, context_length: int | None = None
) -> list[EncodedProbe]:
    """Turns probes into token ids.

    Where the tokenizer merges the target's beginning with the prompt's end, the boundary moves back to the last token
    that both share: the prompt then ends a little earlier and the merged token is the target.

    Args:
        probes (`Sequence[Probe]`): The probes.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): Not needed where every probe holds token ids.
        context_length (`int`, *optional*): The longest prompt that the model takes, in tokens.

    Returns:
        `list[EncodedProbe]`: One entry a probe, in the same order.

    Raises:
        LayerTracerError: There are no probes, or one is empty, too long or merges with its prompt altogether.
    """
    if not probes:
        raise LayerTracerError("There are no probes to diagnose with.")
    encoded = [encode_probe(probe, number, tokenizer) for number, probe in enumerate(probes)]
    for number, (probe, ids) in enumerate(zip(probes, encoded, strict=True)):
        if context_length is not None and len(ids.input_ids) > context_length:
            raise LayerTracerError(
                f"{_name(probe, number)} is {len(ids.input_ids)} tokens long, but the model's context is "
                f"{context_length}. Shorten or drop it, or leave all such probes out (skip_long)."
            )
    return encoded


def encode_probe(probe: Probe, number: int, tokenizer: PreTrainedTokenizerBase | None) -> EncodedProbe:
    """Turns one probe into token ids, however long.

    Args:
        probe ([`Probe`]): The probe.
        number (`int`): Its number, for errors.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): Not needed where the probe holds token ids.

    Returns:
        [`EncodedProbe`]: The ids.

    Raises:
        LayerTracerError: It cannot be asked; the message says why.
    """
    name = _name(probe, number)
    if isinstance(probe.prompt, str) or isinstance(probe.target, str):
        return _encode_text(probe, name, tokenizer)
    try:
        ids, (target,) = tuple(whole_numbers(probe.prompt)), whole_numbers([probe.target])
    except ValueError as error:
        raise LayerTracerError(f"{name}: token ids are {error}.") from error
    if not ids:
        raise LayerTracerError(f"{name} has an empty prompt: there is no position to read an answer at.")
    return EncodedProbe(ids, target, probe.task)


def equal_length_batches(lengths: Sequence[int], batch_size: int) -> Iterator[np.ndarray]:
    """Groups probes into batches in which no prompt needs padding.

    Padding is what makes results depend on the side it is on and on what else is in the batch, and some architectures
    (state-space models, absolute positions) get it wrong: there is none.

    Args:
        lengths (`Sequence[int]`): Prompt length of each probe, in tokens.
        batch_size (`int`): The most probes in one batch.

    Yields:
        `np.ndarray`: Indices of the probes of one batch.
    """
    all_lengths = np.asarray(lengths)
    for length in np.unique(all_lengths):
        members = np.flatnonzero(all_lengths == length)
        for start in range(0, len(members), batch_size):
            yield members[start : start + batch_size]


def probes_hash(encoded: Sequence[EncodedProbe]) -> str:
    """SHA-256 over token ids, targets and tasks: two reports with one hash measured the same thing."""
    digest = hashlib.sha256()
    for probe in encoded:
        digest.update(repr((probe.input_ids, probe.target_id, probe.task)).encode())
    return digest.hexdigest()


def _name(probe: Probe, number: int) -> str:
    return f"Probe {number} ({probe.prompt!r:.60})"


def _encode_text(probe: Probe, name: str, tokenizer: PreTrainedTokenizerBase | None) -> EncodedProbe:
    if not isinstance(probe.prompt, str) or not isinstance(probe.target, str):
        raise LayerTracerError(f"{name} mixes text and token ids: give prompt and target in the same form.")
    if tokenizer is None:
        raise LayerTracerError(f"{name} is text: pass the model's tokenizer (tokenizer=...).")
    if not probe.prompt.strip():
        raise LayerTracerError(f"{name} has an empty prompt: there is no position to read an answer at.")
    if not probe.target:
        raise LayerTracerError(f"{name} has an empty target.")
    check_unicode(probe.prompt + probe.target, name)
    prompt_ids = _ids(tokenizer, probe.prompt)
    joint_ids = _ids(tokenizer, probe.prompt + probe.target)
    shared = 0
    while shared < min(len(prompt_ids), len(joint_ids)) and prompt_ids[shared] == joint_ids[shared]:
        shared += 1
    # The special token that a tokenizer ends every text with is part of neither prompt nor target.
    before, after = _added_specials(tokenizer, probe.prompt, prompt_ids)
    prompt_length = len(prompt_ids) - after
    shared = min(shared, prompt_length)
    if shared <= before:
        raise LayerTracerError(
            f"{name}: the tokenizer merges the target {probe.target!r:.30} with the whole prompt, so nothing is left to "
            "ask with. Lengthen the prompt, or begin the target with a space."
        )
    if shared >= len(joint_ids) - after:
        raise LayerTracerError(f"{name}: the target {probe.target!r:.30} adds no token to the prompt.")
    return EncodedProbe(
        tuple(joint_ids[:shared]),
        joint_ids[shared],
        probe.task,
        _choice_ids(probe, joint_ids[:shared], after, tokenizer),
        shared < prompt_length,
    )


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text)["input_ids"])


def _choice_ids(probe: Probe, prompt: list[int], after: int, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The token with which each choice goes on; none where two begin alike or one does not go on from there."""
    found = []
    for choice in probe.choices:
        ids = _ids(tokenizer, f"{probe.prompt}{choice}")
        if ids[: len(prompt)] != prompt or len(prompt) >= len(ids) - after:
            return ()
        found.append(ids[len(prompt)])
    return tuple(found) if len(set(found)) == len(found) else ()


def _added_specials(tokenizer: PreTrainedTokenizerBase, text: str, ids: list[int]) -> tuple[int, int]:
    """How many tokens the tokenizer itself puts before and after a text; specials in the text are not among them."""
    plain = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    for before in range(len(ids) - len(plain) + 1):
        if ids[before : before + len(plain)] == plain:
            return before, len(ids) - before - len(plain)
    return 0, 0
