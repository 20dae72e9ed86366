"""Gives layers another `forward` for the duration of one call, and finds the hidden state in what they take and return."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


LayerForward = Callable[..., Any]


@contextmanager
def patched(layers: Sequence[nn.Module], replace: Callable[[int, LayerForward], LayerForward]) -> Iterator[None]:
    """Gives every layer the forward that `replace(index, own forward)` returns, until the body ends."""
    # accelerate's device hooks and quantizers also sit in the instance's `forward`: put back what was there.
    before = [layer.__dict__.get("forward") for layer in layers]
    try:
        for index, layer in enumerate(layers):
            layer.forward = replace(index, layer.forward)
        yield
    finally:
        for layer, forward in zip(layers, before, strict=True):
            if forward is not None:
                layer.forward = forward
            elif "forward" in layer.__dict__:
                del layer.forward


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
