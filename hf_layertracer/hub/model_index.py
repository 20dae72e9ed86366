"""The `model-index` of a card: our results in it, and everything else as it was."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from yaml import Node

from . import yaml_edit


FIELD = "model-index"


def merged(index: list[dict[str, Any]], name: str, results: list[dict[str, Any]], ours: Collection[str]) -> list[Any]:
    """A `model-index` with our results in place of earlier ones.

    Args:
        index (`list[dict]`): The `model-index` as it is.
        name (`str`): Name of the model that the results are of.
        results (`list[dict]`): Our results now.
        ours (`Collection[str]`): Types of the data sets by which earlier results of ours are known.

    Returns:
        `list`: Entries that hold nothing but what was ours are left out where nothing takes its place.
    """
    home = home_of(index, name, ours)
    made = []
    for number, entry in enumerate(index):
        kept = [result for result in entry.get("results") or [] if not is_ours(result, ours)]
        kept += results if number == home else []
        if kept or "results" not in entry or len(kept) == len(entry["results"] or []):
            made.append({**entry, "results": kept} if "results" in entry or kept else entry)
    return made + ([{"name": name, "results": results}] if home is None and results else [])


def home_of(index: list[dict[str, Any]], name: str, ours: Collection[str]) -> int | None:
    """The entry that our results belong to: where they are, that of the model's name, or the only one."""
    for number, entry in enumerate(index):
        if any(is_ours(result, ours) for result in entry.get("results") or []):
            return number
    for number, entry in enumerate(index):
        if entry.get("name") == name:
            return number
    return 0 if len(index) == 1 else None


def is_ours(result: dict[str, Any], ours: Collection[str]) -> bool:
    """Whether an earlier push wrote a result."""
    return (result.get("dataset") or {}).get("type") in ours


def edit(text: str, index: list[dict[str, Any]], name: str, results: list[dict], ours: Collection[str]) -> str | None:
    """The lines of our results replaced in YAML text; `None` where it is not written in a way that can be edited."""
    home = home_of(index, name, ours)
    entries = yaml_edit.field_of(text, FIELD)
    if home is None:
        return yaml_edit.add_items(text, entries, [{"name": name, "results": results}])
    changed: str = text
    for number, entry in enumerate(index):
        earlier = [place for place, result in enumerate(entry.get("results") or []) if is_ours(result, ours)]
        added = results if number == home else []
        edited: str | None = changed
        if added:
            edited = yaml_edit.add_items(changed, _results(changed, number), added)
        if earlier and edited is not None:
            edited = yaml_edit.remove_items(edited, _results(edited, number), earlier)
        if edited is None:
            return None
        changed = edited
    return changed


def _results(text: str, number: int) -> Node | None:
    entries = yaml_edit.field_of(text, FIELD)
    return None if entries is None else yaml_edit.child(entries.value[number], "results")
