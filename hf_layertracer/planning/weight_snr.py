"""Signal-to-noise ratio of weight matrices, as in Spectrum (arXiv 2406.06623): a signal that needs no data."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right

import torch
from torch import Tensor, nn

from ..modeling import find_parts
from ..progress import progress_bar
from ..records import ModelFacts


def matrix_snr(weight: Tensor) -> float:
    """Sum of the singular values above the noise threshold over the sum of those below it.

    The threshold is the edge of the Marchenko-Pastur law, sigma * (1 + sqrt(short side / long side)), with sigma taken
    from the interquartile range of the singular values. The ratio is divided by the largest singular value.

    Args:
        weight (`Tensor`): A matrix of shape `(rows, columns)`.

    Returns:
        `float`: The normalised ratio; infinite where no singular value is noise, 0 where all are 0.
    """
    singular = torch.linalg.svdvals(weight.detach().float())
    rows, columns = weight.shape
    quartiles = singular.quantile(torch.tensor([0.25, 0.75], device=singular.device))
    sigma = float(quartiles[1] - quartiles[0]) / 1.349  # of a normal distribution
    threshold = sigma * (1 + math.sqrt(min(rows, columns) / max(rows, columns)))
    signal, noise = float(singular[singular > threshold].sum()), float(singular[singular <= threshold].sum())
    if signal == 0:
        return 0.0
    if noise == 0:
        return math.inf
    return signal / noise / float(singular[0])


def layer_snr(model: nn.Module, facts: ModelFacts) -> list[float]:
    """Ranks each layer's matrices among those of the same name in the other layers, and averages the ranks.

    Spectrum compares only matrices of one kind with each other, as ratios differ between kinds far more than between
    layers.

    Args:
        model (`nn.Module`): The model with its weights.
        facts ([`ModelFacts`]): Its layers.

    Returns:
        `list[float]`: Mean rank per layer, from 0 (noise) to 1.
    """
    layers = find_parts(model, facts.layers_path).layers
    matrices = [
        {name: p for name, p in layer.named_parameters() if p.ndim == 2 and min(p.shape) > 1} for layer in layers
    ]
    ratios: dict[str, dict[int, float]] = {}
    bar = progress_bar("Weight SNR", total=sum(map(len, matrices)), unit="matrices")
    with bar:
        for index, named in enumerate(matrices):
            for name, matrix in named.items():
                ratios.setdefault(name, {})[index] = matrix_snr(matrix)
                bar.update()
    ranks: list[list[float]] = [[] for _ in layers]
    for by_layer in ratios.values():
        order = sorted(by_layer.values())
        for index, ratio in by_layer.items():
            # Equal ratios share the mean of their ranks.
            rank = (bisect_left(order, ratio) + bisect_right(order, ratio) - 1) / 2
            ranks[index].append(rank / max(len(order) - 1, 1))
    return [sum(values) / len(values) if values else 0.0 for values in ranks]
