"""Random hidden dimensions set to zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .base import Draw, Perturb, Perturbation


if TYPE_CHECKING:
    from torch import Tensor

    from ...config import DiagnosisConfig


class Mask(Perturbation):
    """A random fraction `mask_ratio` of the hidden dimensions is zero, at every position and in every layer alike."""

    name = "mask"
    summary = "sets random hidden dimensions to zero"
    random = True

    def __init__(self, config: DiagnosisConfig):
        super().__init__(config)
        self.ratio = config.mask_ratio

    def masks(self, draws: Sequence[Draw], width: int) -> Tensor:
        """Booleans of shape `(draws, width)`, `True` where a dimension is set to zero."""
        import torch

        return torch.stack([dimension_mask(width, self.ratio, self.seed, draw.number) for draw in draws])

    def on(self, draws: Sequence[Draw], width: int) -> Perturb:
        masks = self.masks(draws, width)

        def perturb(layer: int, before: Tensor, after: Tensor) -> Tensor:
            # Between rows and width, a hidden state has positions and, in some models, residual streams.
            shape = (len(masks), *[1] * (after.ndim - 2), width)
            return after.masked_fill(masks.to(after.device).view(shape), 0)

        return perturb


def dimension_mask(width: int, ratio: float, seed: int, draw: int) -> Tensor:
    """Which hidden dimensions one draw sets to zero: the same at every position and in every layer.

    Each draw on its own is a uniformly random subset of `round(ratio * width)` dimensions. Successive draws are
    consecutive stretches of seeded permutations, so that over many draws of at most half of the dimensions each one is
    hit about equally often. The few massive dimensions of a hidden state decide what a mask does: covering all of them
    evenly takes much of the luck out of a mean over masks.

    Args:
        width (`int`): Number of hidden dimensions.
        ratio (`float`): Fraction of them set to zero, in (0, 1].
        seed (`int`): Seed; the draw is made on the CPU and does not depend on the device.
        draw (`int`): Which draw, from 0.

    Returns:
        `Tensor`: Booleans of shape `(width,)`, `True` where the dimension is set to zero.
    """
    import torch

    count = min(max(round(ratio * width), 1), width)
    positions = np.arange(draw * count, (draw + 1) * count)
    mask = np.zeros(width, dtype=bool)
    for cycle in np.unique(positions // width):
        mask[_permutation(width, seed, cycle)[positions[positions // width == cycle] % width]] = True
    # Where one permutation ends and the next begins, both stretches may hold the same dimension: go on in the next.
    following = _permutation(width, seed, positions[-1] // width)
    mask[following[~mask[following]][: count - mask.sum()]] = True
    return torch.from_numpy(mask)


def _permutation(width: int, seed: int, cycle: int) -> np.ndarray:
    return np.random.default_rng((seed, int(cycle))).permutation(width)
