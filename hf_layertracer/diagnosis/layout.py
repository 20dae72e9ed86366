"""Which axes of the tensors around a layer are rows of the batch, and which are positions.

Most models keep hidden states as (rows, positions, width), but not all: some put positions first, some a stream of the
residual. Two passes with different numbers of rows and positions tell the axes apart without a word about architectures.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


Path = tuple[int | str, ...]


@dataclass(frozen=True)
class Layout:
    """The axes of hidden states, and of whatever else is handed to each layer.

    Args:
        rows, positions (`int`): Axes of a hidden state.
        arguments (`dict[int, dict[Path, tuple[int, int]]]`):
            For each layer that runs, the axis of rows of each argument that has one, and how many entries there are of a
            row: one, or one of each head.
    """

    rows: int
    positions: int
    arguments: dict[int, dict[Path, tuple[int, int]]]

    def canonical(self, hidden: Tensor) -> Tensor:
        """A hidden state as `(rows, positions, ..., width)`."""
        return hidden.movedim((self.rows, self.positions), (0, 1))

    def native(self, state: Tensor) -> Tensor:
        """A state of shape `(rows, positions, ..., width)` as the model has it."""
        return state.movedim((0, 1), (self.rows, self.positions))

    def first_rows(self, layer: int, value: Any, rows: int, path: Path = ()) -> Any:
        """The first rows of every tensor among a layer's arguments; what has no rows stays the very object it is."""
        if isinstance(value, Tensor):
            found = self.arguments[layer].get(path)
            return value if found is None else value.narrow(found[0], 0, rows * found[1])
        cut = {key: self.first_rows(layer, item, rows, (*path, key)) for key, item in _items(value)}
        # A container that layers share has to stay the same one.
        if all(cut[key] is item for key, item in _items(value)):
            return value
        return cut if isinstance(value, dict) else type(value)(cut.values())


@dataclass
class Shapes:
    """The shapes of the tensors around the layers in one pass.

    Args:
        rows, positions (`int`): Shape of the prompts.
        hidden (`tuple[int, ...]`): Shape of the hidden state that the first layer takes.
        arguments (`dict[int, dict[Path, tuple]]`): Shapes of the arguments of each layer that runs.
    """

    rows: int
    positions: int
    hidden: tuple[int, ...] = ()
    arguments: dict[int, dict[Path, tuple[int, ...]]] = field(default_factory=dict)


def shapes_of(value: Any, path: Path = ()) -> dict[Path, tuple[int, ...]]:
    """Shapes of all tensors in nested tuples, lists and dictionaries, by where they stand."""
    if isinstance(value, Tensor):
        return {path: tuple(value.shape)}
    found: dict[Path, tuple[int, ...]] = {}
    for key, item in _items(value):
        found |= shapes_of(item, (*path, key))
    return found


def compare(one: Shapes, other: Shapes) -> Layout:
    """What the axes are, by what differs between two passes.

    Args:
        one, other ([`Shapes`]): Two passes that differ in rows and in positions, each size found in one pass only.

    Returns:
        [`Layout`]: The axes. Where none follows the positions (a model that forms patches), it is the one after rows.
    """

    def changed(a: tuple[int, ...], b: tuple[int, ...], before: int, after: int) -> tuple[int, int] | None:
        found = [
            (axis, size // before)
            for axis, (size, other_size) in enumerate(zip(a, b, strict=False))
            if size != other_size and size * after == other_size * before
        ]
        return found[0] if len(a) == len(b) and len(found) == 1 else None

    rows, _ = changed(one.hidden, other.hidden, one.rows, other.rows) or (0, 1)
    positions, _ = changed(one.hidden, other.hidden, one.positions, other.positions) or (rows + 1, 1)
    arguments = {}
    for layer, before in one.arguments.items():
        after = other.arguments[layer]
        axes = {path: changed(shape, after.get(path, ()), one.rows, other.rows) for path, shape in before.items()}
        arguments[layer] = {path: axis for path, axis in axes.items() if axis is not None}
    return Layout(rows, positions, arguments)


def _items(value: Any) -> list[tuple[int | str, Any]]:
    if type(value) in (tuple, list):
        return list(enumerate(value))
    return list(value.items()) if type(value) is dict else []
