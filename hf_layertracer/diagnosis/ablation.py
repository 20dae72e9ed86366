"""Parts of a layer that return zero while the rest of it runs, and which of its parts mix tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor, nn

from .clean_run import CleanRun
from .layer_stack import LayerStack
from .patching import LayerForward, hidden_input, hidden_of, patched, with_hidden, with_hidden_input
from .replay_check import tolerance


_TOKENS = 6
# Far above the rounding of any data type, and far below what other tokens do to a mixer's output.
_CHANGE = 1e-3


@contextmanager
def zeroed(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Lets modules add nothing of their own to the hidden state, until the body ends.

    They return zero, or the residual stream alone where they are given it to add their answer to it, as BLOOM's attention.
    """
    handles = [module.register_forward_hook(_answering_nothing, with_kwargs=True) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _answering_nothing(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> Any:
    residual = _added_residual(module, args, kwargs, hidden_of(output))
    # A copy: what follows may write to it.
    return with_hidden(output, torch.zeros_like(hidden_of(output)) if residual is None else residual.clone())


def _added_residual(part: nn.Module, args: tuple, kwargs: dict, returned: Tensor) -> Tensor | None:
    """The argument that a part adds to its answer, beside the hidden state that it turns into this answer.

    Args:
        part (`nn.Module`): The part.
        args (`tuple`), kwargs (`dict`): What it was called with.
        returned (`Tensor`): The hidden state that it returned.

    Returns:
        `Tensor`: The argument without which the output lacks exactly that; `None` where there is none.
    """
    allowed = tolerance(returned.dtype)
    for place, given in [*enumerate(args[1:], 1), *kwargs.items()]:
        if place == "hidden_states" or not isinstance(given, Tensor):
            continue
        if given.shape != returned.shape or given.dtype != returned.dtype:
            continue
        nothing = torch.zeros_like(given)
        # Copies, for parts that write to what they are given.
        own_args = tuple(nothing if index == place else _copy(value) for index, value in enumerate(args))
        own_kwargs = {name: nothing if name == place else _copy(value) for name, value in kwargs.items()}
        try:
            # Its forward, as hooks have seen this call already: the one that asks would be called without an end.
            lacking = returned - hidden_of(part.forward(*own_args, **own_kwargs))
        except Exception as error:  # a part of any make may fail on zeros: this is no residual to it then
            if should_reduce_batch_size(error):
                raise
            continue
        given = given.to(returned.device)
        if (lacking - given).abs().max() <= allowed * given.abs().max():
            return given
    return None


def find_mixers(stack: LayerStack, clean: CleanRun) -> list[list[nn.Module]]:
    """The token mixers of each layer (attention, state-space, ...), found by what they do.

    A part of a layer mixes tokens if it turns hidden states into hidden states and what it gives at the last position
    depends on the positions before. Of parts inside one another, the innermost counts: it leaves out residual connections
    that an outer one may hold.

    Args:
        stack ([`LayerStack`]): The model's layers.
        clean ([`CleanRun`]): A clean run, from whose first prompt a few tokens are taken.

    Returns:
        `list[list[nn.Module]]`: For each layer its mixers; none for layers without.
    """
    prompt = clean.input_ids[:1, -_TOKENS:]
    if prompt.shape[1] < 2:
        # A single token has none to be mixed with, but what a part does with more is a property of the part.
        prompt = prompt.repeat(1, _TOKENS)
    found: list[list[nn.Module]] = [[] for _ in stack.layers]
    given: dict[nn.Module, tuple[tuple, dict]] = {}
    returned: dict[nn.Module, Tensor] = {}
    parts = {part for layer in stack.layers for part in layer.modules() if next(part.parameters(), None) is not None}

    # Copies of both: a layer may write to what a part takes or returns, as Falcon's, which adds up in place.
    def takes(part: nn.Module, args: tuple, kwargs: dict) -> None:
        if part not in given:
            given[part] = (tuple(map(_copy, args)), {name: _copy(value) for name, value in kwargs.items()})

    def returns(part: nn.Module, _: tuple, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple | list) and output else output
        if isinstance(hidden, Tensor):
            returned.setdefault(part, hidden.clone())

    inside = parts - set(stack.layers)
    handles = [part.register_forward_pre_hook(takes, with_kwargs=True) for part in inside]
    handles += [part.register_forward_hook(returns) for part in inside]
    try:
        states = stack.run(prompt, clean.layout).inputs
    finally:
        for handle in handles:
            handle.remove()
    for layer, module in enumerate(stack.layers):
        shape = clean.layout.native(states[layer]).shape
        asked = [part for part in module.modules() if part in returned and returned[part].shape == shape]
        mixing = [part for part in asked if _mixes(part, *given[part], returned[part], clean)]
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


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _mixes(part: nn.Module, args: tuple, kwargs: dict, returned: Tensor, clean: CleanRun) -> bool:
    given = args[0] if args else kwargs.get("hidden_states")
    if not (isinstance(given, Tensor) and given.shape == returned.shape):
        return False
    canonical = clean.layout.canonical(given)
    noise = torch.randn(canonical.shape, generator=torch.Generator().manual_seed(0)).to(canonical)
    changed = canonical + noise * canonical.std()
    changed[:, -1] = canonical[:, -1]
    try:
        residual = _added_residual(part, args, kwargs, returned)
        args, kwargs = with_hidden_input(args, kwargs, clean.layout.native(changed))
        again = hidden_of(part(*args, **kwargs))
    except Exception as error:  # a part of any make may not be callable on its own: it is not known to mix then
        if should_reduce_batch_size(error):
            raise
        return False
    before, after = (clean.layout.canonical(state)[:, -1].float() for state in (returned, again))
    # Beside the residual stream, which may be far larger than all that a part adds to it.
    own = before if residual is None else before - clean.layout.canonical(residual)[:, -1].float()
    return bool((before - after).abs().max() > _CHANGE * own.abs().max())
