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

    def design(self, draw: Draw, width: int) -> int:
        """The number of the permutation from which the mask is cut."""
        return draw.number // masks_per_permutation(width, self.ratio)

    def on(self, draws: Sequence[Draw], width: int) -> Perturb:
        masks = self.masks(draws, width)

        def perturb(layer: int, before: Tensor, after: Tensor) -> Tensor:
            # Between rows and width, a hidden state has positions and, in some models, residual streams.
            shape = (len(masks), *[1] * (after.ndim - 2), width)
            return after.masked_fill(masks.to(after.device).view(shape), 0)

        return perturb


def dimension_mask(width: int, ratio: float, seed: int, draw: int) -> Tensor:
    """Which hidden dimensions one draw sets to zero: the same at every position and in every layer.

    Each draw on its own is a uniformly random subset of `round(ratio * width)` dimensions. Successive draws are disjoint
    stretches of one seeded permutation, for as long as it lasts; draws from different permutations are independent. The
    few massive dimensions of a hidden state decide what a mask does: covering them evenly takes much of the luck out of a
    mean over masks.

    Args:
        width (`int`): Number of hidden dimensions.
        ratio (`float`): Fraction of them set to zero, in (0, 1].
        seed (`int`): Seed; the draw is made on the CPU and does not depend on the device.
        draw (`int`): Which draw, from 0.

    Returns:
        `Tensor`: Booleans of shape `(width,)`, `True` where the dimension is set to zero.
    """
    import torch

    permutation, place = divmod(draw, masks_per_permutation(width, ratio))
    count = _count(width, ratio)
    mask = np.zeros(width, dtype=bool)
    order = np.random.default_rng((seed, permutation)).permutation(width)
    mask[order[place * count : (place + 1) * count]] = True
    return torch.from_numpy(mask)


def masks_per_permutation(width: int, ratio: float) -> int:
    """How many masks share no dimension."""
    return width // _count(width, ratio)


def _count(width: int, ratio: float) -> int:
    return min(max(round(ratio * width), 1), width)
