"""Random layers, drawn anew every few steps: LISA (arXiv 2403.17919)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .base import Change, Choice, Moment, PlanInputs, Strategy
from .changing import ChangingOptions
from .random import RandomOptions


@dataclass(frozen=True)
class LisaOptions(ChangingOptions, RandomOptions):
    """How many layers to freeze, when to draw anew, and the seed.

    Args:
        freeze_ratio (`float`, *optional*, defaults to `0.5`):
            Fraction of the layers to freeze; the nearest whole number of layers is frozen, a half is rounded up.
        plan_seed (`int`, *optional*, defaults to `0`): Seed of all draws.
        change_steps (`int`, *optional*, defaults to `20`): Optimizer steps between two draws.
        thaw_warmup_steps (`int`, *optional*, defaults to `5`):
            Steps over which what newly trains rises to the scheduled learning rate; at most `change_steps`.
        keep_optimizer_state (`bool`, *optional*, defaults to `False`):
            Keep the optimizer's state of frozen parameters on the CPU until they train again, instead of freeing it.
    """

    def __post_init__(self) -> None:
        RandomOptions.__post_init__(self)
        ChangingOptions.__post_init__(self)


def choose(inputs: PlanInputs, options: LisaOptions) -> Choice:
    """The first draw."""
    return _draw(inputs, options, 0)


def change(inputs: PlanInputs, moment: Moment, options: LisaOptions) -> Choice:
    """Another draw, which depends on seed and step alone."""
    return _draw(inputs, options, moment.step)


def always_said(inputs: PlanInputs) -> str:
    """Which of embedding and head train beside the drawn layers, as the beginning of a reason.

    Args:
        inputs ([`PlanInputs`]): What the strategy is given.

    Returns:
        `str`: Nothing where neither can train.
    """
    parts = [said for part, said in (("embeddings", "embedding"), ("head", "head")) if inputs.can_train(part)]
    if len(parts) == 2:
        return "Embedding and head always train; "
    return f"The {parts[0]} always trains; " if parts else ""


def _draw(inputs: PlanInputs, options: LisaOptions, step: int) -> Choice:
    count = inputs.num_layers - options.number_frozen(inputs.num_layers)
    drawn = np.random.default_rng([options.plan_seed, step]).permutation(inputs.num_layers)[:count]
    return Choice(
        {int(layer) for layer in drawn},
        f"{always_said(inputs)}{count} random layers train, drawn anew every {options.change_steps} steps (LISA, arXiv "
        f"2403.17919; seed {options.plan_seed}, drawn at step {step}).",
        outside={"embeddings", "norm", "head"},
    )


STRATEGY = Strategy(
    "lisa", "Train random layers, drawn anew every few steps (LISA).", choose, LisaOptions, change=Change(change)
)
