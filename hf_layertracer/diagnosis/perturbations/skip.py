"""The layer is left out."""

from __future__ import annotations

from collections.abc import Sequence

from .base import Draw, Perturb, Perturbation


class Skip(Perturbation):
    """The layer returns its input (block ablation, as in ShortGPT, arXiv 2403.03853)."""

    name = "skip"
    summary = "leaves the layer out"
    random = False

    def on(self, draws: Sequence[Draw], width: int) -> Perturb:
        return lambda layer, before, after: before
