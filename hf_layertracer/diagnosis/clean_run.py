"""What a forward pass leaves behind in which nothing was patched."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from .layout import Layout


@dataclass
class CleanRun:
    """The hidden states and the output of one clean forward pass, and what the pass has shown of the layers.

    Args:
        input_ids (`Tensor`): Token ids of shape `(batch, positions)`, unpadded.
        states (`list[Tensor]`):
            L + 1 hidden states of shape `(batch, positions, ..., width)`: the embedding output, then each layer's output.
            After a layer that does not run, the state is the one that passes it by.
        inputs (`list[Tensor]`):
            What each layer took. Nearly always the state before it, but some models do something between their layers.
        logits (`Tensor`): Logits of shape `(batch, vocabulary)` at the last position, in at least float32.
        layout ([`Layout`]): The axes of the tensors around the layers.
        called (`list[int]`): The layers that ran, in order. Some do not run on text alone.
        outputs (`dict[int, Any]`): What each of them returned, as the pattern for another answer.
    """

    input_ids: Tensor
    states: list[Tensor]
    inputs: list[Tensor]
    logits: Tensor
    layout: Layout
    called: list[int]
    outputs: dict[int, Any]

    @property
    def num_layers(self) -> int:
        return len(self.states) - 1

    @property
    def width(self) -> int:
        """Size of the hidden state's last dimension."""
        return self.states[-1].shape[-1]

    def rows(self, chosen: Sequence[int]) -> CleanRun:
        """The run over some of its prompts. What layers returned beside hidden states stays that of all."""
        picked = list(chosen)
        return replace(
            self,
            input_ids=self.input_ids[picked],
            states=[state[picked] for state in self.states],
            inputs=[state[picked] for state in self.inputs],
            logits=self.logits[picked],
        )

    def depth(self, layer: int) -> int:
        """How many of the layers up to `layer`, itself included, run."""
        return bisect_right(self.called, layer)
