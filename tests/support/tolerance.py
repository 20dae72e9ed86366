"""Equality of two ways of computing: within rounding, never to the bit.

Another order of the same sums (other batch, process, sharding, thread count, vector width, address in memory) gives other
last bits in float32. What is the same operations on the same numbers in one process may be compared by `==`.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import BaseModel
from torch import nn

from hf_layertracer.records import Diagnosis


Weights = dict[str, torch.Tensor]

# Two orders of a float32 sum were seen to move a divergence of 1e-3 by 1e-9, one part in a million. bfloat16 moves it by
# one part in a thousand, so tests of precision on tiny values pass a smaller `abs`.
RELATIVE, ABSOLUTE = 1e-4, 1e-6
# Adam divides by the size of the gradient, so rounding grows where a gradient is nearly 0: of a whole tensor, the mean
# difference is judged. One random number too many before the second step makes it 1e-3 (dropout 0.1, learning rate 1e-2).
MEAN_WEIGHT_DIFFERENCE = 1e-5


def nearly(value: Any, rel: float = RELATIVE, abs: float = ABSOLUTE) -> Any:
    """`value` with every float in it, however deep, replaced by one that equals what is within the tolerance."""
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if isinstance(value, float):
        return pytest.approx(value, rel=rel, abs=abs, nan_ok=True)
    if isinstance(value, dict):
        return {key: nearly(item, rel, abs) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(nearly(item, rel, abs) for item in value)
    return value


def measured(diagnosis: Diagnosis) -> dict[str, Any]:
    """What a diagnosis found, without what it cost."""
    return diagnosis.model_dump(exclude={"durations", "memory"})


def weights(model: nn.Module | Weights) -> Weights:
    """The parameters of a model by name; a dictionary of them is taken as it is."""
    return dict(model.named_parameters()) if isinstance(model, nn.Module) else model


def assert_close_weights(one: nn.Module | Weights, other: nn.Module | Weights) -> None:
    """The same parameters within rounding: for runs in two processes, or one of which went on from files."""
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys()
    gaps = {name: float((one[name].detach().double() - other[name].detach().double()).abs().mean()) for name in one}
    assert {name: gap for name, gap in gaps.items() if gap > MEAN_WEIGHT_DIFFERENCE} == {}
