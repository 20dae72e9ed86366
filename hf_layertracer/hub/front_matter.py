"""The YAML at the beginning of a card, edited without touching what is not meant."""

from __future__ import annotations

import re
from typing import Any

import yaml
from huggingface_hub import RepoCard
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.utils import yaml_dump

from ..errors import LayerTracerError


def read_front_matter(card_class: type[RepoCard], text: str) -> RepoCard:
    """Parses a card, with one line for what cannot be read.

    Args:
        card_class (`type`): `ModelCard` or `DatasetCard`.
        text (`str`): The card.

    Returns:
        `RepoCard`: The card.

    Raises:
        LayerTracerError: Its front matter is no valid YAML mapping or no valid metadata.
    """
    try:
        # A card without front matter is a reason for a warning there, but not here.
        return card_class(text if REGEX_YAML_BLOCK.search(text) else f"---\n{{}}\n---\n{text}")
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise unreadable(error) from error


def with_front_matter(text: str, card_class: type[RepoCard], wanted: dict[str, Any]) -> str:
    """Sets fields of a card's front matter.

    Other fields keep their lines, comments included. Only where the YAML is not written line by line, with one field
    below the other, is all of it written anew.

    Args:
        text (`str`): The card.
        card_class (`type`): `ModelCard` or `DatasetCard`.
        wanted (`dict`): The fields, as attributes of the card's data.

    Returns:
        `str`: The card.
    """
    card = read_front_matter(card_class, text)
    before = card.data.to_dict()
    for name, value in wanted.items():
        setattr(card.data, name, value)
    changed = {name: value for name, value in card.data.to_dict().items() if before.get(name) != value}
    if not changed:
        return text
    match = REGEX_YAML_BLOCK.search(text)
    if match is None:
        return f"---\n{yaml_dump(changed, sort_keys=False)}---\n{text}"
    edited = _edited(match.group(2), changed)
    return str(card) if edited is None else text[: match.start(2)] + edited + text[match.end(2) :]


def unreadable(error: Exception) -> LayerTracerError:
    """One line for a card that cannot be read."""
    reason = " ".join(str(error).split())
    return LayerTracerError(f"The front matter of README.md cannot be read: {reason:.200}. Mend it and call again.")


def _edited(block: str, changed: dict[str, Any]) -> str | None:
    """YAML with the lines of some fields replaced; `None` where that does not give the fields that are meant."""
    newline = "\r\n" if "\r\n" in block else "\n"
    lines = re.split(r"\r\n|\r|\n", block)
    for name, value in changed.items():
        written = yaml_dump({name: value}, sort_keys=False).splitlines()
        starts = [number for number, line in enumerate(lines) if re.match(rf"{re.escape(name)}[ \t]*:", line)]
        first = last = starts[0] if starts else len(lines)
        while last < len(lines) and (last == first or lines[last].startswith((" ", "\t", "-"))):
            last += 1
        lines[first:last] = written
    edited = newline.join(lines)
    try:
        meant = {**(yaml.safe_load(block) or {}), **changed}
        return edited if yaml.safe_load(edited) == meant else None
    except yaml.YAMLError:
        return None
