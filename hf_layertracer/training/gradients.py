"""How large the gradients of each layer are, over the steps in which it trains."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import distributed, nn
from torch.amp.grad_scaler import GradScaler, OptState
from torch.distributed.tensor import DTensor

from ..modeling import find_parts
from ..modeling.weights import own_part


class GradientNorms:
    """Sums up the squared norms of the layers' gradients until they are asked for.

    Args:
        num_layers (`int`): Layers of the model.
        layers_path (`str`): Dotted path of their list.
    """

    def __init__(self, num_layers: int, layers_path: str):
        self._path = layers_path
        self._sums, self._steps = [0.0] * num_layers, [0] * num_layers
        self._means: list[float | None] = [None] * num_layers

    def add(self, model: nn.Module, scale: float = 1.0) -> None:
        """Adds the gradients of one step, after backward.

        Args:
            model (`nn.Module`): The model, wrapped or not.
            scale (`float`, *optional*, defaults to `1.0`): What the loss was multiplied by, as float16 needs it.
        """
        squares: list[torch.Tensor | None] = []
        sharded = False
        for layer in find_parts(model, self._path).layers:
            gradients = [p.grad.detach() for p in layer.parameters() if p.requires_grad and p.grad is not None]
            sharded = sharded or any(isinstance(gradient, DTensor) for gradient in gradients)
            parts = [own_part(gradient) for gradient in gradients]
            squares.append(sum((part.float().square().sum() for part in parts), torch.zeros(())) if parts else None)
        trained = [layer for layer, square in enumerate(squares) if square is not None]
        if not trained:
            return
        values = torch.stack([squares[layer] for layer in trained])
        if sharded:  # each process holds a part of every gradient
            distributed.all_reduce(values)
        for layer, value in zip(trained, values.tolist(), strict=True):
            if math.isfinite(value):  # a step of float16 that is skipped
                self._sums[layer] += value / scale**2
                self._steps[layer] += 1

    def scores(self) -> list[float | None]:
        """Root mean square of each layer's gradient norm over the period that ends now, or the last one it trained in.

        Returns:
            `list[float | None]`: One a layer; `None` for one that has not trained.
        """
        for layer, steps in enumerate(self._steps):
            if steps:
                self._means[layer] = math.sqrt(self._sums[layer] / steps)
        self._sums, self._steps = [0.0] * len(self._sums), [0] * len(self._steps)
        return list(self._means)

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to hold, as JSON can."""
        return {"sums": self._sums, "steps": self._steps, "means": self._means}

    def load(self, state: dict[str, Any]) -> None:
        """Goes on from [`state`]."""
        self._sums, self._steps, self._means = state["sums"], state["steps"], state["means"]


def scale_of_gradients(scaler: GradScaler | None, optimizer: torch.optim.Optimizer) -> float:
    """What gradients are multiplied by at this time: that of the loss, until clipping or else the update undoes it.

    Args:
        scaler (`GradScaler`, *optional*): What scales the loss, as float16 needs it.
        optimizer (`torch.optim.Optimizer`): The optimizer, out of accelerate's wrapper.

    Returns:
        `float`: 1 where nothing scales the loss, or that was undone already.
    """
    if scaler is None or not scaler.is_enabled():
        return 1.0
    if scaler._per_optimizer_states[id(optimizer)]["stage"] is OptState.UNSCALED:
        return 1.0
    return scaler.get_scale()
