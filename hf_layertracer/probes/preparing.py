"""What a diagnosis asks: probes that fit the model, each once, with what a reader must know of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import LayerTracerError
from .encoding import EncodedProbe, encode_probe, encode_probes
from .probe import Probe


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class PreparedProbes:
    """Probes that can be asked.

    Args:
        probes (`list[Probe]`): The probes.
        encoded (`list[EncodedProbe]`): Their token ids, in the same order.
        notes (`list[str]`): What was left out, and what looks wrong: sentences for the report.
    """

    probes: list[Probe]
    encoded: list[EncodedProbe]
    notes: list[str]


def prepare_probes(
    probes: Sequence[Probe],
    tokenizer: PreTrainedTokenizerBase | None,
    context_length: int | None = None,
    skip_long: bool = False,
) -> PreparedProbes:
    """Turns probes into token ids and leaves copies out: they would make every standard error look too small.

    Args:
        probes (`Sequence[Probe]`): The probes.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): Not needed where every probe holds token ids.
        context_length (`int`, *optional*): The longest prompt that the model takes, in tokens.
        skip_long (`bool`, *optional*, defaults to `False`): Leave longer ones out, where they are refused otherwise.

    Returns:
        [`PreparedProbes`]: The probes with notes.

    Raises:
        LayerTracerError: There are no probes, or one cannot be asked.
    """
    notes = []
    if skip_long and context_length is not None:
        asked = [encode_probe(probe, number, tokenizer) for number, probe in enumerate(probes)]
        fits = [len(ids.input_ids) <= context_length for ids in asked]
        left_out = len(fits) - sum(fits)
        if fits and not any(fits):
            raise LayerTracerError(f"All {len(fits)} probes are longer than the model's {context_length} tokens.")
        if left_out:
            notes.append(
                f"{left_out} of {len(fits)} probes are longer than the model's context of {context_length} tokens and "
                "were left out."
            )
        probes = [probe for probe, short in zip(probes, fits, strict=True) if short]
    encoded = encode_probes(probes, tokenizer, context_length)
    first: dict[tuple, int] = {}
    for number, ids in enumerate(encoded):
        first.setdefault((ids.input_ids, ids.target_id), number)
    kept = list(first.values())
    if len(kept) < len(encoded):
        notes.append(
            f"{len(encoded) - len(kept)} of {len(encoded)} probes are copies of others and were left out: asked again, "
            "they would tell nothing new, and the standard errors would look smaller than they are."
        )
    kept_probes, kept_encoded = [probes[number] for number in kept], [encoded[number] for number in kept]
    return PreparedProbes(kept_probes, kept_encoded, notes + _doubts(kept_probes, kept_encoded))


def _doubts(probes: Sequence[Probe], encoded: Sequence[EncodedProbe]) -> list[str]:
    """What looks like a mistake in the probes."""
    total = len(probes)
    notes = []
    glued = [probe for probe in probes if _continues_a_word(probe)]
    if glued:
        example = f"{glued[0].prompt[-20:]!r} + {str(glued[0].target)[:20]!r}"
        notes.append(
            f"In {len(glued)} of {total} probes the target follows a letter without a space ({example}). A target is the "
            "text that literally follows the prompt: an English word usually begins with its space."
        )
    blank = sum(isinstance(probe.target, str) and not probe.target.strip() for probe in probes)
    if blank:
        notes.append(f"In {blank} of {total} probes the target is nothing but spaces or line breaks.")
    moved = sum(ids.moved for ids in encoded)
    if moved:
        notes.append(
            f"In {moved} of {total} probes the tokenizer merges the target with the end of the prompt: the prompt ends "
            "earlier there, at the last token that both share."
        )
    alike = sum(bool(probe.choices) and not ids.choice_ids for probe, ids in zip(probes, encoded, strict=True))
    if alike:
        notes.append(
            f"In {alike} of {total} probes several choices begin with the same token: they do not count in the accuracy "
            "over the choices."
        )
    return notes


def _continues_a_word(probe: Probe) -> bool:
    if not isinstance(probe.prompt, str) or not isinstance(probe.target, str):
        return False
    last, first = probe.prompt[-1], probe.target[0]
    return last.isascii() and last.isalnum() and first.isascii() and first.isalnum()
