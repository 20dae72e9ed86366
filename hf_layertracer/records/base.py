"""What all parts of a record share: their base class, the types of numbers, and how depth is counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


SCHEMA_VERSION = 2

Probability = Annotated[float, Field(ge=0, le=1)]
Bits = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
# What is drawn and compared: far beyond any measurement, and near enough that sums and squares of it stay finite.
Error = Annotated[float, Field(ge=0, le=1e30)]
Real = Annotated[float, Field(ge=-1e30, le=1e30)]
Count = Annotated[int, Field(ge=0, lt=2**63)]


class Record(BaseModel):
    """Base of all parts of a report: unknown fields of newer minor versions are dropped, NaN is refused."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


@dataclass(frozen=True)
class Measured:
    """A value with its standard error.

    Args:
        value (`float`): The value.
        stderr (`float`, *optional*): Its standard error; `None` where it is not known.
    """

    value: float
    stderr: float | None

    @property
    def beyond_error(self) -> bool | None:
        """Whether the value differs from 0 by more than two standard errors; `None` where the error is not known."""
        return None if self.stderr is None else abs(self.value) > 2 * self.stderr


def halves(num_layers: int) -> tuple[range, range]:
    """The shallow and the deep half of the layers. The middle layer of an odd depth belongs to neither.

    Args:
        num_layers (`int`): How many layers there are.

    Returns:
        `tuple[range, range]`: Indices of the two halves, equally many; both are empty where there is one layer.

    Example:

    ```python
    >>> from hf_layertracer.records import halves
    >>> halves(5)
    (range(0, 2), range(3, 5))

    ```
    """
    half = num_layers // 2
    return range(half), range(num_layers - half, num_layers)


def relative_depth(layer: float, num_layers: int) -> float:
    """Where along the depth a layer's output lies: 0 is the embedding's output, 1 that of the last layer.

    Args:
        layer (`float`): Index of the layer, from 0; -1 is the embedding.
        num_layers (`int`): How many layers there are.

    Returns:
        `float`: `(layer + 1) / num_layers`.

    Example:

    ```python
    >>> from hf_layertracer.records import relative_depth
    >>> relative_depth(14, 30)
    0.5

    ```
    """
    return (layer + 1) / num_layers


def is_long(name: str, values: Sequence[Any], length: int, or_empty: bool = False) -> None:
    """Refuses a list of another length.

    Args:
        name (`str`): What to call it.
        values (`Sequence[Any]`): The list.
        length (`int`): How long it has to be.
        or_empty (`bool`, *optional*, defaults to `False`): Whether it may be empty.

    Raises:
        ValueError: It has another length.
    """
    if len(values) != length and not (or_empty and not values):
        raise ValueError(f"{name:.80} has {len(values)} entries, not {length}")
