"""The disturbances whose effect on the output is a layer's sensitivity."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


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
    count = min(max(round(ratio * width), 1), width)
    positions = np.arange(draw * count, (draw + 1) * count)
    mask = np.zeros(width, dtype=bool)
    for cycle in np.unique(positions // width):
        mask[_permutation(width, seed, cycle)[positions[positions // width == cycle] % width]] = True
    # Where one permutation ends and the next begins, both stretches may hold the same dimension: go on in the next.
    following = _permutation(width, seed, positions[-1] // width)
    mask[following[~mask[following]][: count - mask.sum()]] = True
    return torch.from_numpy(mask)


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
    draws = []
    for entry in seeds:
        generator = torch.Generator().manual_seed(
            int(np.random.SeedSequence(entry).generate_state(1, np.uint64)[0] >> 1)
        )
        draws.append(torch.randn(state.shape[1:], generator=generator))
    noise = torch.stack(draws).to(state.device, state.dtype)
    return noise * state.std(-1, keepdim=True, correction=0) * scale


def _permutation(width: int, seed: int, cycle: int) -> np.ndarray:
    return np.random.default_rng((seed, int(cycle))).permutation(width)
