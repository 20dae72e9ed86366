"""The YAML at the beginning of a card, edited in place: what is not meant keeps every byte."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import yaml
from huggingface_hub import RepoCard
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.utils import yaml_dump

from ..errors import LayerTracerError
from . import yaml_edit


_MARK = "\ufeff"


def read_front_matter(card_class: type[RepoCard], text: str) -> dict[str, Any]:
    """Parses a card's front matter, with one line for what cannot be read.

    Args:
        card_class (`type`): `ModelCard` or `DatasetCard`, which decides what is valid.
        text (`str`): The card.

    Returns:
        `dict`: The fields as they are written; none where there is no front matter.

    Raises:
        LayerTracerError: It is no valid YAML mapping or no valid metadata.
    """
    text = text.removeprefix(_MARK)
    match = REGEX_YAML_BLOCK.search(text)
    if match is None:
        return {}
    try:
        card_class(text)
        return yaml.safe_load(f"{match.group(2)}\n") or {}
    except (ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise unreadable(error) from error


def with_front_matter(
    text: str, wanted: dict[str, Any], edits: dict[str, Callable[[str], str | None]] | None = None
) -> str:
    """Sets fields of a card's front matter.

    All else keeps its bytes: other fields, comments, line ends, a byte-order mark. What is added to a list is written
    behind its last item. Only where a field is written in a way that cannot be edited is it, or at last the whole front
    matter, written anew.

    Args:
        text (`str`): The card, whose front matter can be read.
        wanted (`dict`): The fields; `None` takes one out.
        edits (`dict`, *optional*): For fields that only change in part: an edit of the YAML's text.

    Returns:
        `str`: The card.
    """
    mark = _MARK if text.startswith(_MARK) else ""
    text = text.removeprefix(_MARK)
    match = REGEX_YAML_BLOCK.search(text)
    newline = yaml_edit.newline_of(text)
    block = match.group(2) + newline if match else ""  # the last line's end belongs to a text block that ends there
    before = yaml.safe_load(block) or {}
    changed = {name: value for name, value in wanted.items() if before.get(name) != value}
    if not changed:
        return mark + text
    for name, value in changed.items():
        meant = {
            other: entry for other, entry in {**before, name: value}.items() if entry is not None or other != name
        }
        block = _edited(block, before, name, value, meant, (edits or {}).get(name))
        block += "" if block.endswith("\n") else newline
        before = meant
    if match is None:
        return f"{mark}---{newline}{block}---{newline}{text}"
    return mark + text[: match.start(2)] + block.removesuffix(newline) + text[match.end(2) :]


def unreadable(error: Exception) -> LayerTracerError:
    """One line for a card that cannot be read."""
    reason = " ".join(str(error).split())
    return LayerTracerError(f"The front matter of README.md cannot be read: {reason:.200}. Mend it and call again.")


def _edited(
    block: str, before: dict, name: str, value: Any, meant: dict, edit: Callable[[str], str | None] | None
) -> str:
    """The first edit that gives what is meant."""
    had = before.get(name)
    ways: list[Callable[[str], str | None]] = [edit] if edit else []
    if isinstance(had, list) and isinstance(value, list) and value[: len(had)] == had:
        ways.append(lambda text: yaml_edit.add_items(text, yaml_edit.field_of(text, name), value[len(had) :]))
    ways.append(lambda text: yaml_edit.replace_field(text, name, value))
    for way in ways:
        try:
            made = way(block)
            if made is not None and (yaml.safe_load(made) or {}) == meant:
                return made
        except yaml.YAMLError:
            continue
    newline = yaml_edit.newline_of(block)
    return newline.join(yaml_dump(meant, sort_keys=False).splitlines())
