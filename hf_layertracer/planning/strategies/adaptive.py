"""A boundary between trained and frozen layers that follows what is measured while the model trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from ...checks import whole_number
from ...errors import LayerTracerError
from .base import Change, Choice, Moment, PlanInputs, Strategy, option
from .changing import ChangingOptions
from .ratio import MeasureOptions, what_was_measured


@dataclass(frozen=True)
class AdaptiveOptions(ChangingOptions, MeasureOptions):
    """Where the boundary begins, when it may move, and how far it has to be off to do so.

    Args:
        freeze_ratio (`float`, *optional*, defaults to `0.5`):
            Fraction of the layers that is frozen at first, from the head down.
        measure (`str`, *optional*):
            A perturbation that was measured (`"skip"`, `"mask"`, `"mixer"`, ...); by default `"skip"`, or the first of
            the report.
        hysteresis (`int`, *optional*, defaults to `1`): The boundary moves only where it would move by more layers.
        change_probes (`int`, *optional*, defaults to `24`): How many of the probes are measured again, evenly spaced.
        change_steps (`int`, *optional*, defaults to `20`): Optimizer steps between two measurements.
        thaw_warmup_steps (`int`, *optional*, defaults to `5`):
            Steps over which what newly trains rises to the scheduled learning rate; at most `change_steps`.
        keep_optimizer_state (`bool`, *optional*, defaults to `False`):
            Keep the optimizer's state of frozen parameters on the CPU until they train again, instead of freeing it.
    """

    hysteresis: int = option(1, "The boundary moves only where it would move by more layers than these.")
    change_probes: int = option(24, "How many of the probes are measured again during training.")

    def __post_init__(self) -> None:
        MeasureOptions.__post_init__(self)
        ChangingOptions.__post_init__(self)
        whole_number("hysteresis", self.hysteresis, least=0)
        whole_number("change_probes", self.change_probes)
        if self.measure == "context":
            raise LayerTracerError(
                "measure='context' is not measured again during training, which adaptive needs: take a perturbation, such "
                "as measure='skip'."
            )


def choose(inputs: PlanInputs, options: AdaptiveOptions) -> Choice:
    """Trains the shallow layers; where the boundary lies says `freeze_ratio`."""
    trained = set(range(inputs.num_layers - options.number_frozen(inputs.num_layers)))
    measure, scores = inputs.first_scores(options.measure)
    return Choice(
        trained,
        f"The shallow {len(trained)} layers train, which hold {_shares(scores)[len(trained)]:.0%} of all sensitivity "
        f"({measure}). Every {options.change_steps} steps it is measured again on {options.change_probes} of the probes at "
        "most, and the boundary moves to where the layers before it hold the share that they held of these before training, "
        f"if that is more than {options.hysteresis} layers away. "
        f"{what_was_measured(inputs, trained)}",
    )


def change(inputs: PlanInputs, moment: Moment, options: AdaptiveOptions) -> Choice | None:
    """Moves the boundary to where the layers before it hold the share of sensitivity that they held at first."""
    layers = inputs.num_layers
    measure, _ = inputs.first_scores(options.measure)
    share = _shares(moment.at_first)[layers - options.number_frozen(layers)]
    now = _shares(moment.scores)
    boundary, wanted = len(moment.trained), min(range(1, layers), key=lambda place: abs(now[place] - share))
    if abs(wanted - boundary) <= options.hysteresis:
        return None
    return Choice(
        set(range(wanted)),
        f"At step {moment.step} the shallow {boundary} layers held {now[boundary]:.0%} of all sensitivity ({measure}) and "
        f"were to hold {share:.0%}, as those did that trained at first: the shallow {wanted} hold {now[wanted]:.0%} and "
        "train from now on.",
    )


def _shares(scores: Sequence[float | None]) -> list[float]:
    """Share of the sum that the first layers hold: of none, of one, ... of all."""
    sums = list(accumulate((max(score or 0.0, 0.0) for score in scores), initial=0.0))
    return [part / sums[-1] if sums[-1] else place / len(scores) for place, part in enumerate(sums)]


STRATEGY = Strategy(
    "adaptive",
    "Train the shallow layers up to a boundary that follows repeated measurements.",
    choose,
    AdaptiveOptions,
    frozenset({"measurements"}),
    Change(change, watches="sensitivity"),
)
