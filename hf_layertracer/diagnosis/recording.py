"""Records what goes into and comes out of each layer during one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UntraceableModelError
from .layout import Shapes, shapes_of
from .patching import LayerForward, hidden_input, hidden_of, patched, with_hidden_input


@dataclass
class Recording:
    """What one forward pass showed; layers that did not run are missing from the dictionaries.

    Args:
        shapes ([`Shapes`]): Shapes of the hidden states and of all that the layers are called with.
        order (`list[int]`): The layers in the order in which they ran.
        inputs (`dict[int, Tensor]`): The hidden state that each layer took.
        states (`dict[int, Tensor]`): The hidden state that each layer returned.
        outputs (`dict[int, Any]`): The tuple around that hidden state, or `None` where there is none.
        logits (`Tensor`): The model's output at the last position.
        overwritten (`bool`): Whether the model wrote into a hidden state after a layer had returned it.
    """

    shapes: Shapes
    order: list[int] = field(default_factory=list)
    inputs: dict[int, Tensor] = field(default_factory=dict)
    states: dict[int, Tensor] = field(default_factory=dict)
    outputs: dict[int, Any] = field(default_factory=dict)
    logits: Tensor | None = None
    overwritten: bool = False


def record(
    model: nn.Module,
    layers: Sequence[nn.Module],
    input_ids: Tensor,
    forward_pass: Callable[[], Tensor],
    *,
    copies: bool = False,
    keep: bool = True,
    edit: Callable[[Tensor], Tensor] | None = None,
) -> Recording:
    """Records one forward pass.

    Args:
        model (`nn.Module`): The model, for the message of an error.
        layers (`Sequence[nn.Module]`): Its decoder layers.
        input_ids (`Tensor`): The prompts that the pass runs on, of shape `(batch, positions)`.
        forward_pass (`Callable`): Runs the model on them and returns its logits.
        copies (`bool`, *optional*, defaults to `False`): Copy every hidden state, to see which are written into later.
        keep (`bool`, *optional*, defaults to `True`): Keep hidden states and outputs, not only shapes.
        edit (`Callable`, *optional*): Turns what the first layer takes into what it is given instead.

    Returns:
        [`Recording`]: What was seen.

    Raises:
        UntraceableModelError: The layers are not called once each, from first to last.
    """
    recording = Recording(Shapes(*input_ids.shape))
    aliases: list[tuple[Tensor, Tensor]] = []

    def kept(state: Tensor) -> Tensor:
        if not copies:
            return state
        aliases.append((state, state.clone()))
        return aliases[-1][1]

    def recorder(index: int, forward: LayerForward) -> LayerForward:
        def recorded(*args: Any, **kwargs: Any) -> Any:
            before = hidden_input(args, kwargs)
            if edit is not None and not recording.order:
                before = edit(before)
                args, kwargs = with_hidden_input(args, kwargs, before)
            recording.order.append(index)
            recording.shapes.hidden.append(tuple(before.shape))
            recording.shapes.arguments[index] = shapes_of([list(args), kwargs])
            if keep:
                recording.inputs[index] = kept(before)
            output = forward(*args, **kwargs)
            if keep:
                recording.states[index] = kept(hidden_of(output))
                # A hidden state that is part of no tuple needs no pattern, and is not kept twice.
                recording.outputs[index] = output if isinstance(output, tuple | list) else None
            return output

        return recorded

    with patched(layers, recorder):
        recording.logits = forward_pass()
    recording.overwritten = any(not torch.equal(state, copy) for state, copy in aliases)
    if not recording.order or recording.order != sorted(set(recording.order)):
        raise UntraceableModelError(
            f"The layers of {type(model).__name__} are called in the order {recording.order[:8]}..., not once each from "
            "first to last. If another list holds the decoder layers, name it with layers_path."
        )
    return recording
