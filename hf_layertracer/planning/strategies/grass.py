"""Layers drawn by their gradients, anew every few steps: GRASS (arXiv 2604.07808)."""

from __future__ import annotations

import numpy as np

from .base import Change, Choice, Moment, PlanInputs, Strategy
from .lisa import LisaOptions, always_said


def choose(inputs: PlanInputs, options: LisaOptions) -> Choice:
    """The first draw: no layer has had a gradient yet, so all are equally likely."""
    return _draw(inputs, options, 0, [None] * inputs.num_layers)


def change(inputs: PlanInputs, moment: Moment, options: LisaOptions) -> Choice:
    """Another draw; a layer that has not trained yet comes before all that have."""
    return _draw(inputs, options, moment.step, moment.scores)


def _draw(inputs: PlanInputs, options: LisaOptions, step: int, norms: list[float | None]) -> Choice:
    count = inputs.num_layers - options.number_frozen(inputs.num_layers)
    random = np.random.default_rng([options.plan_seed, step])
    unseen = [layer for layer, norm in enumerate(norms) if norm is None]
    drawn = [int(layer) for layer in random.permutation(unseen)[:count]]
    if count > len(drawn):
        seen = [layer for layer, norm in enumerate(norms) if norm is not None]
        weights = np.array([norms[layer] for layer in seen], dtype=np.float64)
        # Without gradients at all every layer is as likely; and none is ever out of the question.
        weights = weights + (weights.mean() or 1.0) * 1e-3
        drawn += random.choice(seen, count - len(drawn), replace=False, p=weights / weights.sum()).tolist()
    return Choice(
        set(drawn),
        f"{always_said(inputs)}{count} layers train, drawn anew every {options.change_steps} steps, "
        "each as likely as its gradients were large when it last trained, and those that have not trained yet first (after "
        f"GRASS, arXiv 2604.07808; seed {options.plan_seed}, drawn at step {step}).",
        outside={"embeddings", "norm", "head"},
    )


STRATEGY = Strategy(
    "grass",
    "Train layers drawn by the size of their gradients, anew every few steps (GRASS).",
    choose,
    LisaOptions,
    change=Change(change, watches="gradients"),
)
