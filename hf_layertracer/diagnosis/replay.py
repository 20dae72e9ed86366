"""Runs a causal language model with some of its layers answered from outside.

All of the model's own code still runs around the layers (masks, rotary embeddings, final norm, head, soft caps), so
nothing about an architecture has to be known: a layer is replaced by giving its `forward` another answer for the
duration of one call. Suffix replay is the model's own forward in which every layer up to the disturbed one returns at
once; the lens is the model's own forward in which all of them do.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import UntraceableModelError
from ..modeling import ModelParts
from ..modeling.wrappers import input_device
from .layout import Layout, Shapes, compare, shapes_of


LayerForward = Callable[..., Any]

_LAYOUT_TOKENS = 16  # enough to tell axes apart


@dataclass
class CleanRun:
    """What one undisturbed forward pass leaves behind.

    Args:
        input_ids (`Tensor`): Token ids of shape `(batch, positions)`, unpadded.
        states (`list[Tensor]`):
            L + 1 hidden states of shape `(batch, positions, ..., width)`: the embedding output, then each layer's output.
        logits (`Tensor`): Logits of shape `(batch, vocabulary)` at the last position, in at least float32.
    """

    input_ids: Tensor
    states: list[Tensor]
    logits: Tensor


class LayerStack:
    """The decoder layers of a model, for running the model from, through or around any of them.

    Layers that do not run on text alone are left out once the first pass has shown which: `called` are the indices of
    those that are left, and every other index here counts in them.

    Args:
        parts ([`ModelParts`]): The model and its layers, as `find_parts` gives them.
    """

    def __init__(self, parts: ModelParts):
        self.model = parts.model
        self.layers = list(parts.layers)
        self.called = list(range(parts.num_layers))
        accepted = inspect.signature(parts.model.forward).parameters
        # Only the last position is ever read: where the model can skip the head elsewhere, it does.
        wanted = {"use_cache": False, "logits_to_keep": 1}
        self._arguments = {name: value for name, value in wanted.items() if name in accepted}
        # A layer that returns a tuple must go on returning one: the last clean outputs serve as the pattern.
        self._outputs: list[Any] = [None] * self.num_layers
        self._layout: Layout | None = None

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
        return self.model.get_input_embeddings() if isinstance(self.model, PreTrainedModel) else None

    def clean(self, input_ids: Tensor) -> CleanRun:
        """One undisturbed forward pass over unpadded prompts of equal length.

        Args:
            input_ids (`Tensor`): Token ids of shape `(batch, positions)`.

        Returns:
            [`CleanRun`]: All hidden states and the logits at the last position.

        Raises:
            UntraceableModelError: The layers are not called once each, in order, or the model has no logits per token.
        """
        layout = self._axes(input_ids)
        _, states, logits = self._record(input_ids)
        return CleanRun(input_ids, [layout.canonical(state) for state in states], logits)

    def _axes(self, input_ids: Tensor) -> Layout:
        """The axes of the tensors around the layers, from two passes at the first call."""
        if self._layout is None:
            row = input_ids[:1, :_LAYOUT_TOKENS]
            # One row more and one position less: no axis can change in the same way for both reasons.
            other = row[:, :-1] if row.shape[1] > 1 else row.repeat(1, 3)
            with torch.no_grad():
                one, two = (self._record(ids)[0] for ids in (row, other.repeat(2, 1)))
            self._layout = compare(one, two)
        return self._layout

    def _record(self, input_ids: Tensor) -> tuple[Shapes, list[Tensor], Tensor]:
        """Shapes, hidden states and logits of an undisturbed pass; `self._outputs` are what the layers return."""
        shapes, states, order = Shapes(*input_ids.shape), [], []

        def record(index: int, forward: LayerForward) -> LayerForward:
            def recording(*args: Any, **kwargs: Any) -> Any:
                before = _hidden_input(args, kwargs)
                if not order:
                    states.append(before)
                order.append(index)
                shapes.hidden.append(tuple(before.shape))
                shapes.arguments.append(shapes_of([list(args), kwargs]))
                output = forward(*args, **kwargs)
                self._outputs[index] = output if isinstance(output, tuple | list) else None
                states.append(_hidden(output))
                return output

            return recording

        with self._patched(record):
            logits = self.logits(input_ids)
        if order and order == sorted(set(order)) and len(order) < len(self.layers):
            # The cross-attention of a vision-language model, where there is no picture.
            self.called = [self.called[index] for index in order]
            self.layers, self._outputs = ([items[i] for i in order] for items in (self.layers, self._outputs))
        elif order != list(range(self.num_layers)):
            raise UntraceableModelError(
                f"The layers of {type(self.model).__name__} are called in the order {order[:8]}..., not once each from "
                "first to last. If another list holds the decoder layers, name it with layers_path."
            )
        return shapes, states, logits

    def read(self, states: Tensor, input_ids: Tensor | None = None) -> Tensor:
        """What the model would say if its last layer had answered `states`: final norm, head and all that follows.

        Args:
            states (`Tensor`): Hidden states of shape `(rows, positions, ...)`: one position, or those of whole prompts.
            input_ids (`Tensor`, *optional*): The whole prompts.

        Returns:
            `Tensor`: Logits of shape `(rows, vocabulary)`.
        """
        if input_ids is None:
            input_ids = torch.zeros(states.shape[0], 1, dtype=torch.long, device=self.input_device)
        return self.resume(self.num_layers - 1, [states], input_ids)[0]

    def resume(self, first: int, answers: Sequence[Tensor], input_ids: Tensor) -> Tensor:
        """Suffix replay: the model's output if a layer had answered otherwise. Only the layers after it run.

        Several layers share one forward pass, each with rows of its own: the rows of the k-th answer enter where layer
        `first + k` would have returned, so that a layer runs on the rows that entered before it and on no others.

        A clean run has to come first: it shows what the layers return.

        Args:
            first (`int`): The first layer that is answered for, 0 to L - 1.
            answers (`Sequence[Tensor]`): Answers of layer `first` and of those after it, of shape `(rows, positions, ...)`.
            input_ids (`Tensor`): The prompts of these rows, of shape `(rows, positions)`.

        Returns:
            `Tensor`: Logits of shape `(answers, rows, vocabulary)` at the last position.
        """
        rows, total = len(input_ids), len(input_ids) * len(answers)
        layout = self._layout
        answers = [layout.native(answer) for answer in answers]

        def answer(layer: int, forward: LayerForward) -> LayerForward:
            entered = (layer - first) * rows
            if entered >= total:
                return forward

            def answering(*args: Any, **kwargs: Any) -> Any:
                # Layers before `first` only have to return something of the right shape.
                hidden = _hidden_input(args, kwargs)
                if entered <= 0:
                    entering = torch.cat(answers, layout.rows) if entered == 0 else hidden
                    return _with_hidden(self._outputs[layer], entering)
                args, kwargs = layout.first_rows(layer, [list(args), kwargs], entered)
                output = forward(*args, **kwargs)
                after = _hidden(output)
                later = hidden.narrow(layout.rows, entered, total - entered)
                return _with_hidden(output, torch.cat([after, later.to(after.device)], layout.rows))

            return answering

        with self._patched(answer):
            logits = self.logits(input_ids.repeat(len(answers), 1))
        return logits.view(len(answers), rows, -1)

    def through(self, index: int, edit: Callable[[Tensor, Tensor], Tensor], input_ids: Tensor) -> Tensor:
        """The whole forward pass with layer `index`'s answer edited: slower than `resume`, right for any model.

        Args:
            index (`int`): The layer whose output is edited, 0 to L - 1.
            edit (`Callable`): Takes the layer's input and output hidden state, returns the state to go on with.
            input_ids (`Tensor`): Prompts of shape `(rows, positions)`.

        Returns:
            `Tensor`: Logits of shape `(rows, vocabulary)` at the last position.
        """

        layout = self._axes(input_ids)

        def edited(layer: int, forward: LayerForward) -> LayerForward:
            if layer != index:
                return forward

            def run(*args: Any, **kwargs: Any) -> Any:
                before = layout.canonical(_hidden_input(args, kwargs))
                output = forward(*args, **kwargs)
                return _with_hidden(output, layout.native(edit(before, layout.canonical(_hidden(output)))))

            return run

        with self._patched(edited):
            return self.logits(input_ids)

    def differentiable(self, input_ids: Tensor) -> CleanRun:
        """A clean run whose `states` are nodes of one autograd graph that begins at the embedding output.

        Args:
            input_ids (`Tensor`): Token ids of shape `(batch, positions)`.

        Returns:
            [`CleanRun`]: `logits` carries gradients to every entry of `states`; no parameter is touched.
        """
        states: list[Tensor] = []
        layout = self._axes(input_ids)

        def cut(index: int, forward: LayerForward) -> LayerForward:
            def run(*args: Any, **kwargs: Any) -> Any:
                if index == 0:
                    states.append(layout.canonical(_hidden_input(args, kwargs)).detach().requires_grad_())
                    args, kwargs = _with_hidden_input(args, kwargs, layout.native(states[0]))
                output = forward(*args, **kwargs)
                # The next layer goes on from this very node of the graph.
                states.append(layout.canonical(_hidden(output)))
                return _with_hidden(output, layout.native(states[-1]))

            return run

        with torch.enable_grad(), self._patched(cut):
            logits = self.logits(input_ids)
        return CleanRun(input_ids, states, logits)

    def logits(self, input_ids: Tensor) -> Tensor:
        """The model's output at the last position.

        Args:
            input_ids (`Tensor`): Unpadded prompts of shape `(rows, positions)`.

        Returns:
            `Tensor`: Logits of shape `(rows, vocabulary)`, in at least float32.

        Raises:
            UntraceableModelError: The model gives no logits for every position, so it is no causal language model.
        """
        logits = getattr(self.model(input_ids=input_ids, **self._arguments), "logits", None)
        if not isinstance(logits, Tensor) or logits.ndim != 3:
            raise UntraceableModelError(
                f"{type(self.model).__name__} is not a causal language model: it gives no logits of shape (batch, "
                "positions, vocabulary)."
            )
        logits = logits[:, -1]
        return logits if logits.dtype == torch.float64 else logits.float()

    @contextmanager
    def _patched(self, replace: Callable[[int, LayerForward], LayerForward]) -> Iterator[None]:
        """Gives every layer the forward that `replace(index, own forward)` returns, until the body ends."""
        # accelerate's device hooks and quantizers also sit in the instance's `forward`: put back what was there.
        before = [layer.__dict__.get("forward") for layer in self.layers]
        try:
            for index, layer in enumerate(self.layers):
                layer.forward = replace(index, layer.forward)
            yield
        finally:
            for layer, forward in zip(self.layers, before, strict=True):
                if forward is not None:
                    layer.forward = forward
                elif "forward" in layer.__dict__:
                    del layer.forward


def _hidden(output: Any) -> Tensor:
    """The hidden state in a layer's return value: the value itself or the first of a tuple."""
    return output[0] if isinstance(output, tuple | list) else output


def _with_hidden(output: Any, hidden: Tensor) -> Any:
    if not isinstance(output, tuple | list):
        return hidden
    values = (hidden, *output[1:])
    return type(output)._make(values) if hasattr(output, "_make") else type(output)(values)


def _hidden_input(args: tuple, kwargs: dict) -> Tensor:
    return args[0] if args else kwargs["hidden_states"]


def _with_hidden_input(args: tuple, kwargs: dict, hidden: Tensor) -> tuple[tuple, dict]:
    return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})
