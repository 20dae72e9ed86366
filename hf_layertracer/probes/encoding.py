"""Probes as token ids, in batches of equal length."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import LayerTracerError
from ..logs import get_logger
from . import Probe


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = get_logger(__name__)


@dataclass(frozen=True)
class EncodedProbe:
    """A probe as the model sees it.

    Args:
        input_ids (`tuple[int, ...]`): The prompt's token ids, special tokens included.
        target_id (`int`): The token whose probability is read.
        task (`str`): The probe's task.
    """

    input_ids: tuple[int, ...]
    target_id: int
    task: str


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
    encoded, moved = [], 0
    for number, probe in enumerate(probes):
        name = f"Probe {number} ({probe.prompt!r:.60})"
        if isinstance(probe.prompt, str) or isinstance(probe.target, str):
            ids, target, was_moved = _encode_text(probe, name, tokenizer)
            moved += was_moved
        else:
            ids, target = tuple(int(token) for token in probe.prompt), probe.target
        if not ids:
            raise LayerTracerError(f"{name} has an empty prompt: there is no position to read an answer at.")
        if context_length is not None and len(ids) > context_length:
            raise LayerTracerError(
                f"{name} is {len(ids)} tokens long, but the model's context is {context_length}. Shorten or drop it."
            )
        encoded.append(EncodedProbe(ids, int(target), probe.task))
    if moved:
        logger.info(f"{moved} of {len(probes)} targets merge with the end of their prompt: the boundary moved back.")
    return encoded


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


def _encode_text(probe: Probe, name: str, tokenizer) -> tuple[tuple[int, ...], int, bool]:
    if not isinstance(probe.prompt, str) or not isinstance(probe.target, str):
        raise LayerTracerError(f"{name} mixes text and token ids: give prompt and target in the same form.")
    if tokenizer is None:
        raise LayerTracerError(f"{name} is text: pass the model's tokenizer (tokenizer=...).")
    if not probe.prompt.strip():
        raise LayerTracerError(f"{name} has an empty prompt: there is no position to read an answer at.")
    if not probe.target:
        raise LayerTracerError(f"{name} has an empty target.")
    if (
        probe.prompt[-1].isascii()
        and probe.prompt[-1].isalnum()
        and probe.target[0].isascii()
        and probe.target[0].isalnum()
    ):
        logger.warning_once(
            f"{name}: the target {probe.target!r:.30} follows a letter without a space. A target is the text that "
            "literally follows the prompt; an English word usually begins with a space."
        )
    prompt_ids = list(tokenizer(probe.prompt)["input_ids"])
    joint_ids = list(tokenizer(probe.prompt + probe.target)["input_ids"])
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
    return tuple(joint_ids[:shared]), joint_ids[shared], shared < prompt_length


def _added_specials(tokenizer, text: str, ids: list[int]) -> tuple[int, int]:
    """How many tokens the tokenizer itself puts before and after a text; specials in the text are not among them."""
    plain = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    for before in range(len(ids) - len(plain) + 1):
        if ids[before : before + len(plain)] == plain:
            return before, len(ids) - before - len(plain)
    return 0, 0
