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
        arguments (`tuple[dict[Path, int], ...]`): For each layer, the axis of rows of each argument that has one.
    """

    rows: int
    positions: int
    arguments: tuple[dict[Path, int], ...]

    def canonical(self, hidden: Tensor) -> Tensor:
        """A hidden state as `(rows, positions, ..., width)`."""
        return hidden.movedim((self.rows, self.positions), (0, 1))

    def native(self, state: Tensor) -> Tensor:
        """A state of shape `(rows, positions, ..., width)` as the model has it."""
        return state.movedim((0, 1), (self.rows, self.positions))

    def first_rows(self, layer: int, value: Any, rows: int, path: Path = ()) -> Any:
        """The first rows of every tensor among a layer's arguments; what has no rows stays the very object it is."""
        if isinstance(value, Tensor):
            axis = self.arguments[layer].get(path)
            return value if axis is None else value.narrow(axis, 0, rows)
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
        hidden (`list[tuple]`): Shape of each layer's input hidden state.
        arguments (`list[dict[Path, tuple]]`): Shapes of each layer's arguments.
    """

    rows: int
    positions: int
    hidden: list[tuple[int, ...]] = field(default_factory=list)
    arguments: list[dict[Path, tuple[int, ...]]] = field(default_factory=list)


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

    def changed(a: tuple[int, ...], b: tuple[int, ...], sizes: tuple[int, int]) -> int | None:
        axes = [axis for axis, pair in enumerate(zip(a, b, strict=False)) if pair == sizes]
        return axes[0] if len(a) == len(b) and len(axes) == 1 else None

    rows_sizes, position_sizes = (one.rows, other.rows), (one.positions, other.positions)
    rows = changed(one.hidden[0], other.hidden[0], rows_sizes) or 0
    positions = changed(one.hidden[0], other.hidden[0], position_sizes)
    arguments = []
    for before, after in zip(one.arguments, other.arguments, strict=True):
        axes = {path: changed(shape, after.get(path, ()), rows_sizes) for path, shape in before.items()}
        arguments.append({path: axis for path, axis in axes.items() if axis is not None})
    return Layout(rows, rows + 1 if positions is None else positions, tuple(arguments))


def _items(value: Any) -> list[tuple[int | str, Any]]:
    if type(value) in (tuple, list):
        return list(enumerate(value))
    return list(value.items()) if type(value) is dict else []
