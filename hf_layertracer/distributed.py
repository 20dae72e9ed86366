"""The few words that processes of one run exchange. In a single process, all of them are no-ops."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import distributed


T = TypeVar("T")


def is_distributed() -> bool:
    """Whether several processes run together."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def is_main_process() -> bool:
    """Whether this process is the one that writes files and shows progress."""
    return not is_distributed() or distributed.get_rank() == 0


def from_main_process(value: T) -> T:
    """What the main process holds for `value`, on every process."""
    if not is_distributed():
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def gathered(value: T) -> list[T]:
    """What each process holds for `value`, on every process."""
    if not is_distributed():
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def smallest(value: int, device: torch.device) -> int:
    """The smallest of the processes' values."""
    return _reduce(value, device, distributed.ReduceOp.MIN) if is_distributed() else value


def largest(value: int, device: torch.device) -> int:
    """The largest of the processes' values."""
    return _reduce(value, device, distributed.ReduceOp.MAX) if is_distributed() else value


def total(value: int, device: torch.device) -> int:
    """The sum of the processes' values."""
    return _reduce(value, device, distributed.ReduceOp.SUM) if is_distributed() else value


def _reduce(value: int, device: torch.device, operation: distributed.ReduceOp) -> int:
    box = torch.tensor(value, device=device)
    distributed.all_reduce(box, operation)
    return int(box)
