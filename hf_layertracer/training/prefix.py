"""The frozen layers at the bottom of a model run without a graph.

Where nothing below a layer trains, autograd keeps nothing by itself. With activation checkpointing it does: transformers
makes the embeddings' output require a gradient, so that every frozen layer is run a second time and has gradients led
through it, which reach nothing that trains.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..modeling import HEAD, NORM, ModelParts


Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class FrozenPrefix:
    """Cuts the graph below the first layer that trains, for as long as it is in place.

    What trains is looked up at every forward pass, so a plan that changes during training is followed.

    Args:
        model (`nn.Module`): The model as it is trained, with the wrappers that hold their own parameters.
        parts ([`ModelParts`]): Its layers.
    """

    def __init__(self, model: nn.Module, parts: ModelParts):
        above = [name for name, owners in parts.owners.items() if not owners - {NORM, HEAD, *range(parts.num_layers)}]
        inside = dict(parts.model.named_parameters())
        known = {id(inside[name]) for name in above}
        # Parameters that may lie below a layer: embeddings, soft prompts, towers of other modalities.
        self._outside = [parameter for parameter in model.parameters() if id(parameter) not in known]
        self._layers = parts.layers
        self._depth = 0
        self._handles: list[RemovableHandle] = []

    @property
    def depth(self) -> int:
        """How many layers at the bottom have nothing that trains in them or below them."""
        if any(parameter.requires_grad for parameter in self._outside):
            return 0
        for index, layer in enumerate(self._layers):
            if any(parameter.requires_grad for parameter in layer.parameters()):
                return index
        return 0

    def install(self) -> None:
        """Puts the cut in place."""
        self._handles = [
            layer.register_forward_pre_hook(self._hook(index), with_kwargs=True, prepend=True)
            for index, layer in enumerate(self._layers)
        ]

    def remove(self) -> None:
        """Leaves the model as it was."""
        while self._handles:
            self._handles.pop().remove()

    def _hook(self, index: int) -> Callable[..., Arguments | None]:
        def cut(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments | None:
            place = _hidden(args, kwargs)
            if index == 0:
                wanted = place is not None and (args[place] if isinstance(place, int) else kwargs[place]).requires_grad
                self._depth = self.depth if wanted and layer.training else 0
            if place is None or not self._depth or index > self._depth:
                return None
            # Reentrant checkpointing trains a layer only where its input requires a gradient.
            return _changed(args, kwargs, place, Tensor.detach if index < self._depth else _requiring_gradient)

        return cut


def _hidden(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | str | None:
    """Where the hidden state is among a layer's arguments: the first tensor of numbers."""
    for place, value in (*enumerate(args), *kwargs.items()):
        if isinstance(value, Tensor) and value.is_floating_point():
            return place
    return None


def _changed(
    args: tuple[Any, ...], kwargs: dict[str, Any], place: int | str, change: Callable[[Tensor], Tensor]
) -> Arguments:
    if isinstance(place, int):
        return (*args[:place], change(args[place]), *args[place + 1 :]), kwargs
    return args, {**kwargs, place: change(kwargs[place])}


def _requiring_gradient(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_()
