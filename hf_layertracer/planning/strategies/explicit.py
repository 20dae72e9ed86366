"""An allocation that the user writes down."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral
from typing import Any, SupportsInt

from ...errors import LayerTracerError
from ..cost import layer_names
from ..patterns import matches
from .base import Choice, PlanInputs, Strategy, option


@dataclass(frozen=True)
class ExplicitOptions:
    """Which layers train.

    Args:
        train_layers (`str`, `int` or a sequence of these):
            Indices, ranges (`"0-7"`), slices (`"0:8"`, `"::2"`) or regular expressions on parameter names.
    """

    train_layers: str | None = option(
        None, "Layers that train: 0,1,2 or 0-7 or ::2 or a regular expression on parameter names.", several=True
    )

    def __post_init__(self) -> None:
        if self.train_layers is None:
            raise LayerTracerError("The strategy 'explicit' needs train_layers, such as train_layers='0-7'.")


def choose(inputs: PlanInputs, options: ExplicitOptions) -> Choice:
    """Trains the layers that the user names."""
    named: Any = options.train_layers
    entries = named.split(",") if isinstance(named, str) else named
    entries = list(entries) if isinstance(entries, Iterable) else [entries]
    if isinstance(named, str) and not all(_is_index(entry) for entry in entries):
        entries = [named]  # a regular expression may hold commas
    indices: set[int] = set()
    patterns: list[str] = []
    for entry in entries:
        if not isinstance(entry, Integral | str) or isinstance(entry, bool):
            raise LayerTracerError(
                f"Layers are named by numbers or text, such as train_layers='0-7', not by {entry!r}."
            )
        if not isinstance(entry, str) or _is_index(entry):
            indices |= _parse_indices(entry, inputs.num_layers)
        else:
            patterns.append(entry)
    if not patterns:
        return Choice(indices, f"The layers were named by the user: {named}.")
    if indices:
        raise LayerTracerError(f"Name layers either by index or by regular expression, not both: {named!r}.")
    return _by_pattern(inputs, patterns)


_INDEX = re.compile(r"\s*(-?\d+|\d+\s*-\s*\d+|-?\d*:-?\d*(:-?\d*)?)\s*")


def _is_index(entry: str) -> bool:
    return bool(_INDEX.fullmatch(entry))


def _parse_indices(entry: SupportsInt | str, num_layers: int) -> set[int]:
    if not isinstance(entry, str) or re.fullmatch(r"\s*-?\d+\s*", entry):
        indices = [int(entry)]
    elif ":" in entry:
        parts = [int(part) if part.strip() else None for part in entry.split(":")]
        if len(parts) == 3 and parts[2] == 0:
            raise LayerTracerError(f"The slice {entry!r} has a step of 0.")
        indices = list(range(num_layers))[slice(*parts)]
        if not indices:
            raise LayerTracerError(f"The slice {entry!r} holds none of the layers 0 to {num_layers - 1}.")
    else:
        first, last = (int(part) for part in entry.split("-"))
        # Up to one beyond the last layer: enough to say which one does not exist, whatever number was named.
        indices = list(range(first, min(last, max(first, num_layers)) + 1))
        if not indices:
            raise LayerTracerError(f"The range {entry!r} is empty.")
    for index in indices:
        if not -num_layers <= index < num_layers:
            raise LayerTracerError(
                f"Layer {index} does not exist: the model has {num_layers} layers, 0 to {num_layers - 1}."
            )
    return {index % num_layers for index in indices}


def _by_pattern(inputs: PlanInputs, patterns: list[str]) -> Choice:
    facts = inputs.facts
    names = {name: layer for layer in range(facts.num_layers) for name in layer_names(facts, layer)}
    groups = {"embeddings": facts.embeddings, "norm": facts.norm, "head": facts.head}
    everything = [*names, *(name for group in groups.values() for name in group)]
    for pattern in patterns:
        if not any(matches(pattern, name) for name in everything):
            raise LayerTracerError(
                f"The pattern {pattern!r} matches no parameter. Names look like {', '.join(everything[:3])}."
            )

    def matching(candidates: Iterable[str]) -> list[str]:
        return [name for name in candidates if any(matches(pattern, name) for pattern in patterns)]

    matched = matching(names)
    outside = {group for group, members in groups.items() if matching(members)}
    return Choice(
        {names[name] for name in matched},
        f"Parameters whose names match {' or '.join(patterns)} train: {len(matched)} of {len(names)} in the layers.",
        patterns,
        outside,
    )


STRATEGY = Strategy("explicit", "Train the layers that you name.", choose, ExplicitOptions)
