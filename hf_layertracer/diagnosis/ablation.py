"""Parts of a layer that return zero while the rest of it runs, and which of its parts mix tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .clean_run import CleanRun
from .layer_stack import LayerStack
from .patching import LayerForward, hidden_input, hidden_of, patched, with_hidden, with_hidden_input


_TOKENS = 6
# Far above the rounding of any data type, and far below what other tokens do to a mixer's output.
_CHANGE = 1e-3


@contextmanager
def zeroed(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Lets modules return zero where they return a hidden state, until the body ends."""
    handles = [
        module.register_forward_hook(lambda _, args, output: with_hidden(output, torch.zeros_like(hidden_of(output))))
        for module in modules
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def find_mixers(stack: LayerStack, clean: CleanRun) -> list[list[nn.Module]]:
    """The token mixers of each layer (attention, state-space, ...), found by what they do.

    A part of a layer mixes tokens if it turns hidden states into hidden states and what it gives at the last position
    depends on the positions before. Of parts inside one another, the innermost counts: it leaves out residual connections
    that an outer one may hold.

    Args:
        stack ([`LayerStack`]): The model's layers.
        clean ([`CleanRun`]): A clean run, from whose first prompt a few tokens are taken.

    Returns:
        `list[list[nn.Module]]`: For each layer its mixers; none for layers without, or with a single token.
    """
    prompt = clean.input_ids[:1, -_TOKENS:]
    found: list[list[nn.Module]] = [[] for _ in stack.layers]
    if prompt.shape[1] < 2:
        return found
    calls: dict[nn.Module, tuple[tuple, dict, Any]] = {}
    parts = {part for layer in stack.layers for part in layer.modules() if next(part.parameters(), None) is not None}

    def seen(part: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        calls.setdefault(part, (args, kwargs, output))

    inside = parts - set(stack.layers)
    handles = [part.register_forward_hook(seen, with_kwargs=True) for part in inside]
    try:
        states = stack.run(prompt, clean.layout).inputs
    finally:
        for handle in handles:
            handle.remove()
    for layer, module in enumerate(stack.layers):
        shape = clean.layout.native(states[layer]).shape
        mixing = [part for part in module.modules() if part in calls and _mixes(part, *calls[part], shape, clean)]
        found[layer] = [part for part in mixing if not set(mixing) & (set(part.modules()) - {part})]
    return found


def ablated_outputs(stack: LayerStack, clean: CleanRun, modules: Sequence[Sequence[nn.Module]]) -> list[Tensor]:
    """What each layer would return on its clean input if modules in it returned zero.

    Args:
        stack ([`LayerStack`]): The model's layers.
        clean ([`CleanRun`]): The clean run of a batch.
        modules (`Sequence[Sequence[nn.Module]]`): Modules of each layer.

    Returns:
        `list[Tensor]`: L hidden states of shape `(batch, positions, ..., width)`.
    """
    outputs = list(clean.states[1:])

    def twice(index: int, forward: LayerForward) -> LayerForward:
        def run(*args: Any, **kwargs: Any) -> Any:
            hidden = hidden_input(args, kwargs)
            # On a copy, for layers that write to what they are given.
            own_args, own_kwargs = with_hidden_input(args, kwargs, hidden.clone())
            with zeroed(modules[index]):
                output = forward(*own_args, **own_kwargs)
            outputs[index] = clean.layout.canonical(hidden_of(output))
            return forward(*args, **kwargs)

        return run

    with patched(stack.layers, twice):
        stack.logits(clean.input_ids, clean.layout.call)
    return outputs


def _mixes(part: nn.Module, args: tuple, kwargs: dict, output: Any, shape: torch.Size, clean: CleanRun) -> bool:
    given = args[0] if args else kwargs.get("hidden_states")
    returned = hidden_of(output) if output is not None else None
    if not (isinstance(given, Tensor) and isinstance(returned, Tensor) and given.shape == returned.shape == shape):
        return False
    canonical = clean.layout.canonical(given)
    noise = torch.randn(canonical.shape, generator=torch.Generator().manual_seed(0)).to(canonical)
    changed = canonical + noise * canonical.std()
    changed[:, -1] = canonical[:, -1]
    args, kwargs = with_hidden_input(args, kwargs, clean.layout.native(changed))
    try:
        again = hidden_of(part(*args, **kwargs))
    except Exception:  # a part of any make may not be callable on its own: it is not known to mix then
        return False
    before, after = (clean.layout.canonical(state)[:, -1].float() for state in (returned, again))
    return bool((before - after).abs().max() > _CHANGE * before.abs().max())
