"""A boundary between trained and frozen layers that moves on a schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

from ...checks import one_of
from ...errors import LayerTracerError
from .base import Change, Choice, Moment, PlanInputs, Strategy, option
from .changing import ChangingOptions
from .ratio import RatioOptions


@dataclass(frozen=True)
class ScheduleOptions(ChangingOptions, RatioOptions):
    """Where the boundary begins and ends, and which side of it is frozen.

    Args:
        freeze_ratio (`float`, *optional*, defaults to `0.5`): Fraction of the layers that is frozen at first.
        final_freeze_ratio (`float`, *optional*, defaults to `0.0`):
            Fraction that is frozen at the end: less than at first, and what trains grows; more, and it shrinks.
        frozen_end (`str`, *optional*, defaults to `"deep"`): `"deep"` or `"shallow"`: where the frozen layers lie.
        change_steps (`int`, *optional*, defaults to `20`): Optimizer steps between two moves.
        thaw_warmup_steps (`int`, *optional*, defaults to `5`):
            Steps over which what newly trains rises to the scheduled learning rate; at most `change_steps`.
        keep_optimizer_state (`bool`, *optional*, defaults to `False`):
            Keep the optimizer's state of frozen parameters on the CPU until they train again, instead of freeing it.
    """

    final_freeze_ratio: float = option(0.0, "Fraction of the layers that is frozen at the end of training.")
    frozen_end: str = option("deep", "Where the frozen layers of a schedule lie: deep or shallow.")

    def __post_init__(self) -> None:
        RatioOptions.__post_init__(self)
        ChangingOptions.__post_init__(self)
        if not isinstance(self.final_freeze_ratio, Real) or not 0 <= self.final_freeze_ratio < 1:
            raise LayerTracerError(
                f"final_freeze_ratio must be at least 0 and below 1, not {self.final_freeze_ratio!r}."
            )
        one_of("frozen_end", self.frozen_end, ("deep", "shallow"))


def choose(inputs: PlanInputs, options: ScheduleOptions) -> Choice:
    """What trains at first."""
    return _with_frozen(inputs, options, options.number_frozen(inputs.num_layers), 0)


def change(inputs: PlanInputs, moment: Moment, options: ScheduleOptions) -> Choice | None:
    """As many layers as the schedule says at this step; the last period has what is asked for at the end."""
    last = max((moment.total_steps - 1) // options.change_steps, 1)
    done = min(moment.step // options.change_steps / last, 1.0)
    ratio = options.freeze_ratio + done * (options.final_freeze_ratio - options.freeze_ratio)
    frozen = min(math.floor(inputs.num_layers * ratio + 0.5), inputs.num_layers - 1)
    if frozen == inputs.num_layers - len(moment.trained):
        return None
    return _with_frozen(inputs, options, frozen, moment.step)


def _with_frozen(inputs: PlanInputs, options: ScheduleOptions, frozen: int, step: int) -> Choice:
    layers, deep = inputs.num_layers, options.frozen_end == "deep"
    return Choice(
        set(range(layers - frozen)) if deep else set(range(frozen, layers)),
        f"On a schedule from {options.freeze_ratio:.0%} of the depth frozen to {options.final_freeze_ratio:.0%}, "
        f"{frozen} {options.frozen_end} layers are frozen from step {step} on.",
    )


STRATEGY = Strategy(
    "schedule",
    "Let what trains grow or shrink during training.",
    choose,
    ScheduleOptions,
    change=Change(change),
)
