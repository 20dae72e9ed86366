"""Parts of the last layer that have to run on the last position alone: the only one whose output is read."""

from __future__ import annotations

from typing import Any

from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor, nn

from .clean_run import CleanRun
from .layer_stack import LayerStack
from .patching import hidden_of
from .replay_check import moved, tolerance


# Of a layer's parameters. What is smaller, such as a norm, takes no time.
_SMALLEST_SHARE = 0.2
_Answers = tuple[Tensor, dict[nn.Module, Tensor]]


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
    whole, most = _answers(stack, clean, state, large), tolerance(state.dtype)
    return [part for part in large if _agree(_answers(stack, clean, state, [part], alone=True), whole, part, most)]


def _answers(
    stack: LayerStack, clean: CleanRun, state: Tensor, parts: list[nn.Module], alone: bool = False
) -> _Answers | None:
    """Logits after the last layer has run on a state, and what parts of it returned at the last position.

    Args:
        stack ([`LayerStack`]): The model's layers.
        clean ([`CleanRun`]): A clean run.
        state (`Tensor`): What the last layer is given.
        parts (`list[nn.Module]`): Parts of it.
        alone (`bool`, *optional*, defaults to `False`): Whether they are given the last position alone.

    Returns:
        `tuple[Tensor, dict[nn.Module, Tensor]]`: Both; `None` where the layer does not run so.
    """
    returned: dict[nn.Module, Tensor] = {}
    axis = clean.layout.positions

    def see(part: nn.Module, _: tuple, output: Any) -> None:
        hidden = hidden_of(output)
        if isinstance(hidden, Tensor) and hidden.ndim > axis:
            # A copy: the layer may go on to add something to it.
            returned[part] = hidden.narrow(axis, hidden.shape[axis] - 1, 1).clone()

    handles = [part.register_forward_hook(see) for part in parts]
    stack.position_wise = parts if alone else []
    try:
        return stack.replay(clean, clean.called[-1] - 1, [state], clean.input_ids), returned
    except Exception as error:  # a part of any make may need all positions, or return something else
        if should_reduce_batch_size(error):
            raise
        return None
    finally:
        stack.position_wise = []
        for handle in handles:
            handle.remove()


def _agree(alone: _Answers | None, whole: _Answers | None, part: nn.Module, most: float) -> bool:
    """Whether a part may run alone: by the output, and by what it returns, which may matter little to this output."""
    if alone is None or whole is None:
        return False
    (logits, returned), (all_logits, all_returned) = alone, whole
    if logits.shape != all_logits.shape or not moved(logits, all_logits) <= most:
        return False
    one, other = returned.get(part), all_returned.get(part)
    if one is None or other is None or one.shape != other.shape:
        return False
    return bool((one - other).abs().max() <= most * other.abs().max())


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
