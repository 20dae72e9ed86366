"""Which axes of the tensors around a layer are rows of the batch, and which are positions.

Most models keep hidden states as (rows, positions, width), but not all: some put positions first, some a stream of the
residual. Two passes with different numbers of rows and positions tell the axes apart without a word about architectures.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask


Path = tuple[int | str, ...]


@dataclass(frozen=True)
class Layout:
    """The axes of hidden states, and of whatever else is handed to each layer.

    Args:
        rows, positions (`int`): Axes of a hidden state.
        arguments (`dict[int, dict[Path, tuple[int, int]]]`):
            For each layer that runs, the axis of rows of each argument that has one, and how many entries there are of a
            row: one, or one of each head.
        dimensions (`dict[int, dict[Path, int]]`): For each layer that runs, the number of axes of each argument.
        call (`dict[str, Any]`): What the model is called with beside the prompts.
        in_place (`bool`): Whether layers write to what they are given.
    """

    rows: int
    positions: int
    arguments: dict[int, dict[Path, tuple[int, int]]]
    dimensions: dict[int, dict[Path, int]] = field(default_factory=dict)
    call: dict[str, Any] = field(default_factory=dict)
    in_place: bool = False

    def covers(self, shapes: Shapes) -> bool:
        """Whether the arguments of a pass are those that this layout knows. A mask may come in at some length only."""
        for layer, found in shapes.arguments.items():
            if {path: len(shape) for path, shape in found.items()} != self.dimensions.get(layer):
                return False
            for path, (axis, entries) in self.arguments[layer].items():
                if found[path][axis] != shapes.rows * entries:
                    return False
        return True

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
        if isinstance(value, BlockMask):
            return _first_rows_of_mask(value, rows)
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
        hidden (`list[tuple[int, ...]]`): Shape of the hidden state that each layer takes.
        arguments (`dict[int, dict[Path, tuple]]`): Shapes of the arguments of each layer that runs.
    """

    rows: int
    positions: int
    hidden: list[tuple[int, ...]] = field(default_factory=list)
    arguments: dict[int, dict[Path, tuple[int, ...]]] = field(default_factory=dict)


def shapes_of(value: Any, path: Path = ()) -> dict[Path, tuple[int, ...]]:
    """Shapes of all tensors in nested tuples, lists and dictionaries, by where they stand."""
    if isinstance(value, Tensor):
        return {path: tuple(value.shape)}
    found: dict[Path, tuple[int, ...]] = {}
    for key, item in _items(value):
        found |= shapes_of(item, (*path, key))
    return found


def hidden_axes(one: Shapes, other: Shapes) -> tuple[int, int]:
    """Which axes of a hidden state are rows and positions, by what differs between two passes.

    Args:
        one, other ([`Shapes`]): Two passes that differ in rows and in positions, each size found in one pass only.

    Returns:
        `tuple[int, int]`: The axes. Where none follows the positions (a model that forms patches), it is the one after
        the rows.
    """
    rows, _ = _changed(one.hidden[0], other.hidden[0], one.rows, other.rows) or (0, 1)
    positions, _ = _changed(one.hidden[0], other.hidden[0], one.positions, other.positions) or (rows + 1, 1)
    return rows, positions


def argument_axes(one: Shapes, other: Shapes) -> dict[int, dict[Path, tuple[int, int]]]:
    """The axis of rows of each argument of each layer, by what differs between two passes.

    Args:
        one, other ([`Shapes`]): Two passes that differ in rows alone.

    Returns:
        `dict[int, dict[Path, tuple[int, int]]]`: As `Layout.arguments`.
    """
    found = {}
    for layer, before in one.arguments.items():
        after = other.arguments[layer]
        axes = {path: _changed(shape, after.get(path, ()), one.rows, other.rows) for path, shape in before.items()}
        found[layer] = {path: axis for path, axis in axes.items() if axis is not None}
    return found


def _changed(a: tuple[int, ...], b: tuple[int, ...], before: int, after: int) -> tuple[int, int] | None:
    """The one axis whose size changed as the number of rows or positions did, and its size for each of them."""
    found = [
        (axis, size // before)
        for axis, (size, other) in enumerate(zip(a, b, strict=False))
        if size != other and size * after == other * before
    ]
    return found[0] if len(a) == len(b) and len(found) == 1 else None


def _first_rows_of_mask(mask: BlockMask, rows: int) -> BlockMask:
    """Flex attention's mask for the first rows. With a mask of more rows than it has, its kernel ends the process."""
    if mask.shape[0] <= rows:
        return mask
    cut = mask[:rows]
    cut.mask_mod = mask.mask_mod  # which a cut loses, as the rows' numbers may change; those of the first rows do not
    return cut


def _items(value: Any) -> list[tuple[int | str, Any]]:
    if type(value) in (tuple, list):
        return list(enumerate(value))
    return list(value.items()) if type(value) is dict else []
