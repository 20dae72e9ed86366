"""Parts of the last layer that have to run on the last position alone: the only one whose output is read."""

from __future__ import annotations

from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor, nn

from .clean_run import CleanRun
from .layer_stack import LayerStack
from .replay_check import tolerance


# Of a layer's parameters. What is smaller, such as a norm, takes no time.
_SMALLEST_SHARE = 0.2


def find_position_wise(stack: LayerStack, clean: CleanRun) -> list[nn.Module]:
    """Parts of the last layer that may be given its last position alone, found by trying.

    A feed-forward part does the same at every position, and what it adds at all others is never read. Attention needs the
    keys and values of all positions: with one of them, its answer is another one, or none at all.

    Args:
        stack ([`LayerStack`]): The model's layers.
        clean ([`CleanRun`]): A clean run.

    Returns:
        `list[nn.Module]`: The parts, for `LayerStack.position_wise`.
    """
    last = clean.called[-1]
    if last == 0 or clean.layout.in_place or clean.input_ids.shape[1] < 2:
        return []
    # Another state than the clean one: nothing may depend on what that happens to be.
    state = clean.states[last].clone()
    state[..., ::2] = 0
    layer = stack.layers[last]
    large = [part for part in layer.children() if _parameters(part) >= _SMALLEST_SHARE * _parameters(layer)]
    whole = _output(stack, clean, state, [])
    return [part for part in large if _agree(_output(stack, clean, state, [part]), whole, tolerance(state.dtype))]


def _output(stack: LayerStack, clean: CleanRun, state: Tensor, parts: list[nn.Module]) -> Tensor | None:
    """Probabilities after the last layer has run on a state; `None` where it does not run so."""
    stack.position_wise = parts
    try:
        return stack.replay(clean, clean.called[-1] - 1, [state], clean.input_ids).softmax(-1)
    except Exception as error:  # a part of any make may need all positions
        if should_reduce_batch_size(error):
            raise
        return None
    finally:
        stack.position_wise = []


def _agree(one: Tensor | None, other: Tensor | None, most: float) -> bool:
    if one is None or other is None or one.shape != other.shape:
        return False
    return float((one - other).abs().max()) <= most


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
