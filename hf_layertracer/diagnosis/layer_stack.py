"""Runs a causal language model with some of its layers answered from outside.

All of the model's own code still runs around the layers (masks, rotary embeddings, final norm, head, soft caps), so
nothing about an architecture has to be known: a layer is replaced by giving its `forward` another answer for the
duration of one call. Replay is the model's own forward in which every layer up to the patched one returns at once; the
lens is the model's own forward in which all of them do.
"""

from __future__ import annotations

import inspect
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UntraceableModelError
from ..modeling import ModelParts
from ..modeling.wrappers import input_device, input_embeddings
from .clean_run import CleanRun
from .controls import final_norm
from .layout import Layout, Shapes, argument_axes, hidden_axes
from .patching import (
    LayerForward,
    computing_in,
    hidden_input,
    hidden_of,
    on_last_position,
    patched,
    with_hidden,
    with_hidden_input,
)
from .recording import Recording, record


_FEW_TOKENS = 8  # enough to tell axes apart from those of a longer prompt


class LayerStack:
    """The decoder layers of a model, for running the model from, through or around any of them.

    It keeps nothing of what it runs: whatever a later pass needs is in the [`CleanRun`].

    Args:
        parts ([`ModelParts`]): The model and its layers, as `find_parts` gives them.
    """

    def __init__(self, parts: ModelParts):
        self.model = parts.model
        self.layers = parts.layers
        self.final_norm = final_norm(parts)
        self.position_wise: list[nn.Module] = []
        """Parts of the last layer that replay runs on the last position alone, which is the only one that is read."""
        self._accepted = inspect.signature(parts.model.forward).parameters

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    @property
    def input_device(self) -> torch.device:
        return input_device(self.model, self._embeddings)

    @property
    def vocabulary(self) -> int | None:
        """How many tokens the embedding knows, or `None` where it does not say."""
        return getattr(self._embeddings, "num_embeddings", None)

    @property
    def _embeddings(self) -> nn.Module | None:
        return input_embeddings(self.model)

    def find_layout(self, input_ids: Tensor) -> Layout:
        """How the model is called and what the axes of the tensors around its layers are, from a few passes.

        Args:
            input_ids (`Tensor`): Token ids of shape `(batch, positions)`.

        Returns:
            [`Layout`]: The layout for prompts of this length.
        """
        row = input_ids[:1]
        few = row[:, : min(row.shape[1] - 1, _FEW_TOKENS)] if row.shape[1] > 1 else row.repeat(1, 3)
        with torch.no_grad():
            for call in self._calls():
                one = self._record(row, call, copies=True)
                if len(set(one.shapes.hidden)) == 1:
                    break
            # More rows and fewer positions, or three of these: no axis can change in the same way for both reasons.
            rows, positions = hidden_axes(one.shapes, self._record(few.repeat(2, 1), call, keep=False).shapes)
        arguments = self._arguments(one.shapes, row, call)
        return Layout(rows, positions, call=call, in_place=one.overwritten, **arguments)

    def _calls(self) -> Iterator[dict[str, Any]]:
        """Ways to call the model, best first."""
        # Only the last position is ever read: where the model can skip the head elsewhere, it does. Some drop all other
        # positions before their last layers (Gemma 4, whose layers share keys and values), unless they are named one by
        # one.
        for keep in ({"logits_to_keep": 1}, {"logits_to_keep": torch.tensor([-1])}, {}):
            wanted = {"use_cache": False, **keep}
            yield {name: value for name, value in wanted.items() if name in self._accepted}

    def _record(self, input_ids: Tensor, call: dict[str, Any], **how: Any) -> Recording:
        return record(self.model, self.layers, input_ids, lambda: self.logits(input_ids, call), **how)

    def _arguments(self, one: Shapes, input_ids: Tensor, call: dict[str, Any]) -> dict[str, Any]:
        """What a layout says of the layers' arguments, from a pass and another one with more rows or fewer."""
        other = input_ids[:1] if len(input_ids) > 1 else input_ids.repeat(2, 1)
        with torch.no_grad():
            two = self._record(other, call, keep=False).shapes
        dimensions = {
            layer: {path: len(shape) for path, shape in found.items()} for layer, found in one.arguments.items()
        }
        return {"arguments": argument_axes(one, two), "dimensions": dimensions}

    def run(
        self, input_ids: Tensor, layout: Layout | None = None, embed: Callable[[Tensor], Tensor] | None = None
    ) -> CleanRun:
        """One clean forward pass over unpadded prompts of equal length.

        Args:
            input_ids (`Tensor`): Token ids of shape `(batch, positions)`.
            layout ([`Layout`], *optional*): The axes, where an earlier run has found them.
            embed (`Callable`, *optional*): Turns what the first layer takes into what it is given instead.

        Returns:
            [`CleanRun`]: All hidden states and the logits at the last position.

        Raises:
            UntraceableModelError: The layers are not called once each, in order, or the model has no logits per token.
        """
        layout = layout or self.find_layout(input_ids)
        edit = None if embed is None else lambda hidden: layout.native(embed(layout.canonical(hidden)))
        recorded = self._record(input_ids, layout.call, copies=layout.in_place, edit=edit)
        if not layout.covers(recorded.shapes):
            layout = replace(layout, **self._arguments(recorded.shapes, input_ids, layout.call))
        states, inputs = [layout.canonical(recorded.inputs[recorded.order[0]])], []
        for index in range(self.num_layers):
            runs = index in recorded.inputs
            inputs.append(layout.canonical(recorded.inputs[index]) if runs else states[-1])
            states.append(layout.canonical(recorded.states[index]) if runs else states[-1])
        return CleanRun(input_ids, states, inputs, recorded.logits, layout, recorded.order, recorded.outputs)

    def unembed(self, clean: CleanRun, states: Tensor, input_ids: Tensor | None = None) -> Tensor:
        """What the model would say if its last layer had answered `states`: final norm, head and all that follows.

        Args:
            clean ([`CleanRun`]): Any clean run of the model.
            states (`Tensor`): Hidden states of shape `(rows, positions, ...)`: one position, or those of whole prompts.
            input_ids (`Tensor`, *optional*): The whole prompts.

        Returns:
            `Tensor`: Logits of shape `(rows, vocabulary)`.
        """
        if input_ids is None:
            input_ids = torch.zeros(states.shape[0], 1, dtype=torch.long, device=self.input_device)
        return self.replay(clean, self.num_layers - 1, [states], input_ids)[0]

    def replay(
        self,
        clean: CleanRun,
        first: int,
        answers: Sequence[Tensor],
        input_ids: Tensor,
        compute_dtype: torch.dtype | None = None,
    ) -> Tensor:
        """The model's output if a layer had answered otherwise. Only the layers after it run.

        Several layers share one forward pass, each with its own rows: the rows of the k-th answer enter where layer
        `first + k` would have returned, so that a layer runs on the rows that entered before it and on no others.

        Args:
            clean ([`CleanRun`]): Any clean run of the model: it shows which layers run and what they return.
            first (`int`): The first layer that is answered for, 0 to L - 1.
            answers (`Sequence[Tensor]`): Answers of layer `first` and of those after it, of shape `(rows, positions, ...)`.
            input_ids (`Tensor`): The prompts of these rows, of shape `(rows, positions)`.
            compute_dtype (`torch.dtype`, *optional*):
                What the matrix products inside the layers are computed in; hidden states, final norm and head are left as
                they are.

        Returns:
            `Tensor`: Logits of shape `(answers, rows, vocabulary)` at the last position.
        """
        rows, layout = len(input_ids), clean.layout
        # The answer of a layer that does not run enters with that of the last one before it that does.
        depths = [clean.depth(first + offset) for offset in range(len(answers))]
        entering = [layout.native(answer) for answer in answers]

        def together(hidden: Tensor) -> Tensor:
            return torch.cat([state.to(hidden.device) for state in entering], layout.rows)

        def answer(layer: int, forward: LayerForward) -> LayerForward:
            depth = clean.depth(layer)
            entered = bisect_right(depths, depth - 1)  # answers that run through this layer
            own = forward if compute_dtype is None else computing_in(compute_dtype, forward)

            def run(*args: Any, **kwargs: Any) -> Any:
                parts = self.position_wise if layer == clean.called[-1] else []
                with patched(parts, on_last_position(layout.positions)):
                    return own(*args, **kwargs)

            def answering(*args: Any, **kwargs: Any) -> Any:
                hidden = hidden_input(args, kwargs)
                if depth <= depths[0]:
                    # Layers before the first answer only have to return something of the right shape.
                    return with_hidden(clean.outputs[layer], together(hidden) if depth == depths[0] else hidden)
                if depths[0] == 0 and depth == 1:
                    args, kwargs = with_hidden_input(args, kwargs, together(hidden))
                if entered == len(answers):
                    return run(*args, **kwargs)
                args, kwargs = layout.first_rows(layer, [list(args), kwargs], entered * rows)
                output = run(*args, **kwargs)
                after = hidden_of(output)
                # Not what came with `hidden`: the model may have done something to it between its layers.
                later = [state.to(after.device) for state in entering[entered:]]
                return with_hidden(output, torch.cat([after, *later], layout.rows))

            return answering

        with patched(self.layers, answer):
            logits = self.logits(input_ids.repeat(len(answers), 1), layout.call)
        return logits.view(len(answers), rows, -1)

    def patch(
        self, clean: CleanRun, index: int, edit: Callable[[Tensor, Tensor], Tensor], input_ids: Tensor
    ) -> Tensor:
        """The whole forward pass with the output of one layer edited: slower than `replay`, right for any model.

        Args:
            clean ([`CleanRun`]): Any clean run of the model.
            index (`int`): The layer whose output is edited, 0 to L - 1.
            edit (`Callable`): Takes the layer's input and output hidden state, returns the state to go on with.
            input_ids (`Tensor`): Prompts of shape `(rows, positions)`.

        Returns:
            `Tensor`: Logits of shape `(rows, vocabulary)` at the last position.
        """
        layout, depth = clean.layout, clean.depth(index)
        runs = index in clean.called
        edited = clean.called[max(depth - 1, 0)]

        def edited_forward(layer: int, forward: LayerForward) -> LayerForward:
            if layer != edited:
                return forward

            def run(*args: Any, **kwargs: Any) -> Any:
                before = layout.canonical(hidden_input(args, kwargs))
                before = before.clone() if layout.in_place else before
                if depth == 0:
                    args, kwargs = with_hidden_input(args, kwargs, layout.native(edit(before, before)))
                    return forward(*args, **kwargs)
                output = forward(*args, **kwargs)
                after = layout.canonical(hidden_of(output))
                return with_hidden(output, layout.native(edit(before if runs else after, after)))

            return run

        with patched(self.layers, edited_forward):
            return self.logits(input_ids, layout.call)

    def logits(self, input_ids: Tensor, call: dict[str, Any] | None = None) -> Tensor:
        """The model's output at the last position.

        Args:
            input_ids (`Tensor`): Unpadded prompts of shape `(rows, positions)`.
            call (`dict[str, Any]`, *optional*): What the model is called with beside them, as a layout has it.

        Returns:
            `Tensor`: Logits of shape `(rows, vocabulary)`, in at least float32.

        Raises:
            UntraceableModelError: The model gives no logits for every position, so it is no causal language model.
        """
        call = next(self._calls()) if call is None else call
        logits = getattr(self.model(input_ids=input_ids, **call), "logits", None)
        if not isinstance(logits, Tensor) or logits.ndim != 3:
            raise UntraceableModelError(
                f"{type(self.model).__name__} is not a causal language model: it gives no logits of shape (batch, "
                "positions, vocabulary)."
            )
        logits = logits[:, -1]
        return logits if logits.dtype == torch.float64 else logits.float()
