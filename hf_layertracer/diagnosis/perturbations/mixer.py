"""A layer without its token mixer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .base import Draw, Perturb, Perturbation


if TYPE_CHECKING:
    from torch import nn

    from ..clean_run import CleanRun
    from ..layer_stack import LayerStack


class Mixer(Perturbation):
    """The layer's token mixer (attention, state-space, ...) returns zero, the rest of the layer runs.

    It says which mixers a hybrid could replace. A layer without a mixer has the sensitivity 0.
    """

    name = "mixer"
    summary = "lets the layer's token mixer return zero"
    random = False

    def ablated(self, stack: LayerStack, clean: CleanRun) -> list[list[nn.Module]]:
        from ..ablation import find_mixers

        return find_mixers(stack, clean)

    def on(self, draws: Sequence[Draw], width: int) -> Perturb:
        return lambda layer, before, after: after
