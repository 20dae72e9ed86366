"""Whole forward passes with hooks, one prompt at a time: slow, simple, and sharing no code with the package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def whole_pass(
    model: nn.Module, layers: Sequence[nn.Module], prompt: Sequence[int], edits: dict[int, Callable]
) -> tuple[list[Tensor], Tensor]:
    """One forward pass over one prompt with forward hooks: every layer's output, and the last position's probabilities.

    A layer that does not run passes on the hidden state of the one before it, and that is what an edit of it edits.
    """
    runs = layers_run(model, layers, prompt)
    edits = {max(run for run in runs if run <= index): (edit, index in runs) for index, edit in edits.items()}
    states: dict[int, Tensor] = {}

    def hook(index: int) -> Callable:
        def seen(_: nn.Module, args: tuple, kwargs: dict, output: Any) -> Any:
            hidden = output[0] if isinstance(output, tuple | list) else output
            before = args[0] if args else kwargs["hidden_states"]
            if index == 0:
                states[-1] = before.clone()
            if index in edits:
                edit, own = edits[index]
                hidden = edit(before if own else hidden, hidden)
            states[index] = hidden.clone()
            if not isinstance(output, tuple | list):
                return hidden
            return type(output)._make([hidden, *output[1:]]) if hasattr(output, "_make") else (hidden, *output[1:])

        return seen

    handles = [layer.register_forward_hook(hook(index), with_kwargs=True) for index, layer in enumerate(layers)]
    logits = _logits(model, prompt, handles)
    passed = [states[max(run for run in (-1, *runs) if run <= index)] for index in range(-1, len(layers))]
    return passed, logits.double().softmax(-1)


def layers_run(model: nn.Module, layers: Sequence[nn.Module], prompt: Sequence[int]) -> list[int]:
    """Indices of the layers that run."""
    runs: list[int] = []
    handles = [layer.register_forward_hook(lambda *_, i=i: runs.append(i)) for i, layer in enumerate(layers)]
    _logits(model, prompt, handles)
    return runs


def _logits(model: nn.Module, prompt: Sequence[int], handles: Sequence[Any]) -> Tensor:
    try:
        with torch.no_grad():
            return model(input_ids=torch.tensor([list(prompt)]), use_cache=False).logits[0, -1]
    finally:
        for handle in handles:
            handle.remove()


def divergence(p: Tensor, q: Tensor) -> float:
    """Jensen-Shannon divergence in bits."""
    m = (p + q) / 2
    return float(sum(torch.where(x > 0, x * torch.log2(x / m), 0.0).sum() for x in (p, q)) / 2)
