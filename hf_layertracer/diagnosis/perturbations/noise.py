"""Gaussian noise on a layer's output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .base import Draw, Perturb, Perturbation


if TYPE_CHECKING:
    from torch import Tensor

    from ...config import DiagnosisConfig


class Noise(Perturbation):
    """Gaussian noise with `noise_scale` times the hidden state's own standard deviation at each position."""

    name = "noise"
    summary = "adds Gaussian noise"
    random = True

    def __init__(self, config: DiagnosisConfig):
        super().__init__(config)
        self.scale = config.noise_scale

    def on(self, draws: Sequence[Draw], width: int) -> Perturb:
        def perturb(layer: int, before: Tensor, after: Tensor) -> Tensor:
            return after + noise_like(
                after, self.scale, [(self.seed, draw.repeat, layer, draw.probe) for draw in draws]
            )

        return perturb


def noise_like(state: Tensor, scale: float, seeds: list[tuple[int, ...]]) -> Tensor:
    """Gaussian noise with `scale` times the hidden state's own standard deviation at each position.

    Args:
        state (`Tensor`): Hidden states of shape `(rows, positions, width)`.
        scale (`float`): Noise standard deviation in units of the state's.
        seeds (`list[tuple[int, ...]]`):
            One entry a row. Each row's noise depends on its entry alone, not on the batch it lies in or the device.

    Returns:
        `Tensor`: Noise of the shape, device and dtype of `state`.
    """
    import torch

    draws = []
    for entry in seeds:
        generator = torch.Generator().manual_seed(
            int(np.random.SeedSequence(entry).generate_state(1, np.uint64)[0] >> 1)
        )
        draws.append(torch.randn(state.shape[1:], generator=generator))
    noise = torch.stack(draws).to(state.device, state.dtype)
    return noise * state.std(-1, keepdim=True, correction=0) * scale
