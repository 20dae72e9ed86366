"""Shares the probes of a diagnosis out over the processes of a distributed run, and puts together what they observed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import distributed, nn

from ..distributed import gathered, is_distributed
from ..errors import LayerTracerError
from ..modeling.wrappers import is_sharded
from .measurements import Measurement


# Two processes with the same model and prompt differ by rounding alone.
_SAME = 1e-2


class Shares:
    """Which part of each batch is this process's own.

    Processes share where each holds the whole model, and all of them the same one with the same probes and settings.
    Otherwise each measures everything, as the passes of a sharded model are made by all processes together.

    Args:
        model (`nn.Module`): The model.
        asked (`Any`): What all processes must agree on: probes and settings.
        logits (`torch.Tensor`): The model's output for the same prompt on every process.
    """

    def __init__(self, model: nn.Module, asked: Any, logits: torch.Tensor):
        self.rank, self.count = 0, 1
        if not is_distributed() or is_sharded(model):
            return
        output = logits.float().softmax(-1).cpu()
        others = gathered((asked, output))
        alike = all(other == asked and torch.allclose(theirs, output, atol=_SAME) for other, theirs in others)
        if all(gathered(alike)):
            self.rank, self.count = distributed.get_rank(), distributed.get_world_size()

    def own(self, members: Sequence[int]) -> list[int]:
        """The members of a batch that this process measures."""
        # Reversed now and then, so that no process gets one more each time.
        return list(members)[(self.rank + len(members)) % self.count :: self.count]

    def part(self, values: int) -> int:
        """About how many of the values this process measures."""
        return -(-values // self.count)

    def before(self, measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
        """What [`Shares.put_together`] has to know of measurements before they observe; nothing of a single process."""
        return states(measurements) if self.count > 1 else []

    def put_together(
        self, measurements: Sequence[Measurement], before: Sequence[dict[str, Any]], problem: Exception | None
    ) -> None:
        """Gives every process what all of them have observed.

        Args:
            measurements (`Sequence[Measurement]`): The measurements, after observing.
            before (`Sequence[dict]`): What [`Shares.before`] returned.
            problem (`Exception`, *optional*): What ended the observing on this process.

        Raises:
            LayerTracerError: Something ended the observing on another process.
        """
        if self.count == 1:
            if problem is not None:
                raise problem
            return
        said = None if problem is None else f"{type(problem).__name__}: {problem!s:.200}"
        found = gathered((said, states(measurements) if problem is None else []))
        if problem is not None:
            raise problem
        for rank, (other, _) in enumerate(found):
            if other is not None:
                raise LayerTracerError(f"The diagnosis failed on process {rank}: {other}")
        for number, measurement in enumerate(measurements):
            for name, value in before[number].items():
                setattr(measurement, name, merged(value, [observed[number].get(name, value) for _, observed in found]))


def states(measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Copies of all that observing may change in measurements: arrays, lists, dictionaries and text."""
    return [
        {
            name: value.copy() if isinstance(value, np.ndarray | list | dict) else value
            for name, value in vars(measurement).items()
            if value is None or isinstance(value, np.ndarray | list | dict | str)
        }
        for measurement in measurements
    ]


def merged(before: Any, after: Sequence[Any]) -> Any:
    """One value from those of all processes: what each of them added to the value that they began with."""
    if isinstance(before, np.ndarray):
        result = before.copy()
        for value in after:
            real = value.dtype.kind == "f"
            empty = np.isnan(before) if real else np.zeros(before.shape, dtype=bool)
            new = empty & ~np.isnan(value) if real else empty
            result[new] = value[new]
            if real:
                result[~empty] += (value - before)[~empty]
            else:
                result[value != before] = value[value != before]
        return result
    if isinstance(before, dict):
        return {key: value for each in (before, *after) for key, value in each.items()}
    if isinstance(before, list):
        return before + [item for value in after for item in value[len(before) :]]
    return next((value for value in after if value != before), before)
