"""Refuses what does not fit together, before anything is written: all differences in one table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..errors import IncompatibleDonorsError, LayerTracerError
from .configs import differing_fields
from .donors import Donor
from .recipe import HybridRecipe


def check_ranges(recipe: HybridRecipe, donors: dict[str, Donor]) -> list[tuple[Donor, int]]:
    """The stack that a recipe describes.

    Args:
        recipe ([`HybridRecipe`]): The recipe.
        donors (`dict[str, Donor]`): Its donors by the names in it.

    Returns:
        `list[tuple[Donor, int]]`: Donor and layer, from the first layer to the last.

    Raises:
        LayerTracerError: A donor has no such layers, or mixers are named for layers that are none.
    """
    base = donors[recipe.base]
    if recipe.layers is None:
        stack = [(base, index) for index in range(base.parts.num_layers)]
    else:
        stack = []
        for number, source in enumerate(recipe.layers):
            donor, (start, end) = donors[source.donor], source.layer_range
            if end > donor.parts.num_layers:
                raise LayerTracerError(
                    f"layers[{number}].layer_range: [{start}, {end}] goes beyond the {donor.parts.num_layers} layers of "
                    f"{donor.name}."
                )
            stack += [(donor, index) for index in range(start, end)]
    for number, mixer in enumerate(recipe.mixers):
        if (highest := max(mixer.layers)) >= len(stack):
            raise LayerTracerError(
                f"mixers[{number}].layers: there is no layer {highest}; the hybrid has {len(stack)} layers."
            )
    return stack


def check_compatible(
    base: Donor, stack: Sequence[tuple[Donor, int]], embeddings: Donor, norm: Donor, head: Donor, tokenizer: Donor
) -> None:
    """Refuses donors whose layers would compute something else in the base's architecture.

    Args:
        base ([`Donor`]): Whose configuration is taken.
        stack (`Sequence[tuple[Donor, int]]`): Donor and layer.
        embeddings, norm, head, tokenizer ([`Donor`]): Who gives them.

    Raises:
        IncompatibleDonorsError: They do not fit; the message holds a table of what differs and what would allow it.
    """
    rows: list[tuple[str, str, str, str, str]] = []
    for donor in dict.fromkeys([donor for donor, _ in stack] + [embeddings, norm, head]):
        if donor is base:
            continue
        for field, ours, theirs in differing_fields(base, donor):
            rows.append((donor.name, field, _short(ours), _short(theirs), "no option; take another donor"))
    sizes = embeddings.text_config.vocab_size, head.text_config.vocab_size
    if sizes[0] != sizes[1]:
        allowed = f"embeddings and head from one model: `head: {embeddings.name}`"
        rows.append((head.name, "vocab_size", str(sizes[0]), str(sizes[1]), allowed))
    for slot, donor in (("tokenizer", tokenizer), ("head", head)):
        if donor is embeddings:
            continue
        theirs, ours = _vocabulary(donor), _vocabulary(embeddings)
        if theirs is not None and ours is not None and theirs != ours:
            count = sum(ours.get(token) != number for token, number in theirs.items())
            has = f"{len(theirs)}, {count} other"
            rows.append((donor.name, "vocabulary", f"{len(ours)} tokens", has, f"`{slot}: {embeddings.name}`"))
    if rows:
        raise IncompatibleDonorsError(
            f"The donors do not fit {base.name}. Nothing was written.\n"
            + _table(("donor", "differs in", "expected", "has", "what would allow it"), rows)
        )


def check_structure(expected: Any, stack: Sequence[tuple[Donor, int]]) -> None:
    """Checks that each layer of the joined model is built as it is in its donor.

    Args:
        expected ([`ModelParts`]): The structure of the joined model.
        stack (`Sequence[tuple[Donor, int]]`): Donor and layer.

    Raises:
        LayerTracerError: The configuration cannot say what this stack of layers is.
    """
    kinds = expected.kinds()
    donor_kinds = {donor: donor.parts.kinds() for donor, _ in stack}
    for index, (donor, layer) in enumerate(stack):
        ours, theirs = _shapes(expected.layers[index]), _shapes(donor.parts.layers[layer])
        if ours != theirs or kinds[index] != donor_kinds[donor][layer]:
            odd = sorted(set(ours.items()) ^ set(theirs.items()))
            detail = f"{odd[0][0]} {list(odd[0][1])}" if odd else f"{kinds[index]} for {donor_kinds[donor][layer]}"
            raise LayerTracerError(
                f"Layer {index} would not be built as layer {layer} of {donor.name} is ({detail}): the configuration of "
                f"{type(expected.model).__name__} has no field by layer for it. Keep the donor's layers at such places "
                "that the pattern of kinds stays."
            )


def _shapes(layer: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in layer.named_parameters()}


def _vocabulary(donor: Donor) -> dict[str, int] | None:
    """Numbers by token, or `None` where a model comes without a tokenizer."""
    from transformers import AutoTokenizer

    if not donor.tokenizer_files():
        return None
    try:
        return AutoTokenizer.from_pretrained(donor.folder).get_vocab()
    except (OSError, ValueError, KeyError) as error:
        raise LayerTracerError(
            f"{donor.name}: its tokenizer cannot be read: {' '.join(str(error).split())[:200]}"
        ) from error


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
