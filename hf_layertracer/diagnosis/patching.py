"""Gives layers another `forward` for the duration of one call, and finds the hidden state in what they take and return."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn


LayerForward = Callable[..., Any]


# A user's own hooks are part of the layer: they run where the layer runs, and see nothing of what is patched in.
_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)


@contextmanager
def patched(layers: Sequence[nn.Module], replace: Callable[[int, LayerForward], LayerForward]) -> Iterator[None]:
    """Gives every layer the forward that `replace(index, own forward)` returns, for one pass of the model.

    A module that stands in the list more than once has a forward for each of its places, in their order.
    """
    places: dict[nn.Module, list[int]] = {}
    for index, layer in enumerate(layers):
        places.setdefault(layer, []).append(index)
    with ExitStack() as stack:
        for layer, indices in places.items():
            stack.enter_context(_patched(layer, indices, replace))
        yield


@contextmanager
def _patched(
    layer: nn.Module, indices: Sequence[int], replace: Callable[[int, LayerForward], LayerForward]
) -> Iterator[None]:
    # accelerate's device hooks and quantizers also sit in the instance's `forward`: put back what was there.
    found = {name: layer.__dict__[name] for name in ("forward", *_HOOKS) if name in layer.__dict__}
    hooked = layer._forward_hooks or layer._forward_pre_hooks
    own_forward, calls = layer.forward, count()

    def put_in() -> None:
        layer.__dict__.update({name: OrderedDict() for name in _HOOKS}, forward=forward)

    def put_back() -> None:
        layer.__dict__.pop("forward", None)
        layer.__dict__.update(found)

    def own(*args: Any, **kwargs: Any) -> Any:
        put_back()
        try:
            return layer(*args, **kwargs)
        finally:
            put_in()

    answers = [replace(index, own if hooked else own_forward) for index in indices]

    def forward(*args: Any, **kwargs: Any) -> Any:
        return answers[min(next(calls), len(answers) - 1)](*args, **kwargs)

    try:
        put_in()
        yield
    finally:
        put_back()


def computing_in(dtype: torch.dtype, forward: LayerForward) -> LayerForward:
    """A layer's forward with its matrix products in another data type; it takes and returns what it did."""

    def run(*args: Any, **kwargs: Any) -> Any:
        hidden = hidden_input(args, kwargs)
        with torch.autocast(hidden.device.type, dtype):
            output = forward(*args, **kwargs)
        return with_hidden(output, hidden_of(output).to(hidden.dtype))

    return run


def on_last_position(axis: int) -> Callable[[int, LayerForward], LayerForward]:
    """For `patched`: a module is given the last position of its hidden state alone, and returns no other.

    Args:
        axis (`int`): The axis of positions.
    """

    def replace(_: int, forward: LayerForward) -> LayerForward:
        def run(*args: Any, **kwargs: Any) -> Any:
            hidden = hidden_input(args, kwargs)
            args, kwargs = with_hidden_input(args, kwargs, hidden.narrow(axis, hidden.shape[axis] - 1, 1))
            return forward(*args, **kwargs)

        return run

    return replace


def hidden_of(output: Any) -> Tensor:
    """The hidden state in a layer's return value: the value itself or the first of a tuple."""
    return output[0] if isinstance(output, tuple | list) else output


def with_hidden(output: Any, hidden: Tensor) -> Any:
    """A layer's return value with another hidden state in it."""
    if not isinstance(output, tuple | list):
        return hidden
    values = (hidden, *output[1:])
    return type(output)._make(values) if hasattr(output, "_make") else type(output)(values)


def hidden_input(args: tuple, kwargs: dict) -> Tensor:
    """The hidden state in a layer's arguments."""
    return args[0] if args else kwargs["hidden_states"]


def with_hidden_input(args: tuple, kwargs: dict, hidden: Tensor) -> tuple[tuple, dict]:
    """A layer's arguments with another hidden state in them."""
    return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})
