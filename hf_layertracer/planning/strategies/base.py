"""What a strategy is, what it is given and what it decides."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from ...checks import as_meant
from ...errors import LayerTracerError
from ...records import Diagnosis, ModelFacts, ReportData


if TYPE_CHECKING:
    from torch import nn

Need = Literal["measurements", "weights", "budget", "new mixers"]


@dataclass(frozen=True)
class PlanInputs:
    """What a strategy may look at.

    Args:
        facts ([`ModelFacts`]): The model's layers and parameters.
        report ([`ReportData`], *optional*): Measurements; there for every strategy that needs them.
        model (`nn.Module`, *optional*): The model with its weights; there for every strategy that needs them.
        always_trained (`frozenset[str]`, *optional*):
            Which of `"embeddings"`, `"norm"` and `"head"` train whatever the strategy says.
        never_trained (`frozenset[str]`, *optional*): Which of these do not.
        takes (`Callable[[Choice], int]`, *optional*): Bytes that training what a strategy chooses takes.
        takes_what (`str`, *optional*): What these bytes are, in words.
    """

    facts: ModelFacts
    report: ReportData | None = None
    model: nn.Module | None = None
    always_trained: frozenset[str] = frozenset()
    never_trained: frozenset[str] = frozenset()
    takes: Callable[[Choice], int] | None = None
    takes_what: str = ""

    @property
    def num_layers(self) -> int:
        return self.facts.num_layers

    def can_train(self, part: str) -> bool:
        """Whether the user lets a part outside the layers train, and something in it could before.

        Args:
            part (`str`): `"embeddings"`, `"norm"` or `"head"`.

        Returns:
            `bool`: Whether it can.
        """
        tied = self.facts.tied and part == "head"
        names = {*getattr(self.facts, part), *(self.facts.embeddings if tied else ())}
        return part not in self.never_trained and not names <= set(self.facts.frozen)

    @property
    def measured(self) -> ReportData:
        """The measurements, for a strategy that needs them: `check_inputs` has refused to go on without."""
        assert self.report is not None
        return self.report

    def scores(self, measure: str | None) -> tuple[str, list[float]]:
        """One measured score a layer.

        Args:
            measure (`str`, *optional*):
                A perturbation that was measured, or `"context"`; by default `"skip"`, which tells best what the loss on
                text loses with a layer, or else the first perturbation of the report.

        Returns:
            `tuple[str, list[float]]`: The measure's name and the scores.

        Raises:
            LayerTracerError: It was not measured.
        """
        return self._scores_of(self.measured.latest, measure)

    def first_scores(self, measure: str | None) -> tuple[str, list[float]]:
        """The scores of the diagnosis before training, as [`PlanInputs.scores`] gives those of the latest.

        Args:
            measure (`str`, *optional*): A perturbation that was measured, or `"context"`.

        Returns:
            `tuple[str, list[float]]`: The measure's name and the scores.

        Raises:
            LayerTracerError: It was not measured.
        """
        return self._scores_of(self.measured.diagnoses[0], measure)

    def _scores_of(self, diagnosis: Diagnosis, measure: str | None) -> tuple[str, list[float]]:
        known = {name: sensitivity.mean for name, sensitivity in diagnosis.sensitivities.items()}
        if diagnosis.context is not None:
            known["context"] = diagnosis.context.delta
        chosen = measure or (_BEST if _BEST in known else diagnosis.perturbation)
        if not isinstance(chosen, str) or chosen not in known:
            raise LayerTracerError(
                f"measure={chosen!r} is not in the report, which has {', '.join(known)}: diagnose with "
                f"perturbation={chosen!r}."
            )
        return chosen, known[chosen]


# It predicts best what a model loses with a layer: docs/guides/what-sensitivity-predicts.md has the figures, and the script
# that measures them.
_BEST = "skip"


@dataclass(frozen=True)
class Choice:
    """What a strategy decides.

    Args:
        trained (`set[int]`): Layers that train.
        reason (`str`): Why, in words.
        patterns (`list[str]`): Regular expressions that parameters inside these layers have to match to train.
        outside (`set[str]`, *optional*):
            Which of `"embeddings"`, `"norm"` and `"head"` train; by default they follow their neighbouring layers.
    """

    trained: set[int]
    reason: str
    patterns: list[str] = field(default_factory=list)
    outside: set[str] | None = None


@dataclass(frozen=True)
class NoOptions:
    """Of a strategy that takes no options."""


@dataclass(frozen=True)
class Moment:
    """When a strategy is asked again what trains, and what was seen since it was asked last.

    Args:
        step (`int`): Optimizer steps made so far.
        total_steps (`int`): Optimizer steps of the whole run.
        trained (`frozenset[int]`): Layers that train until now.
        scores (`list[float]`, *optional*):
            What the strategy watches, one a layer: the root mean square of the gradient's norm over the steps in which
            the layer last trained (`None` for one that has not), or its sensitivity now.
        at_first (`list[float]`, *optional*): Of a strategy that watches sensitivity: the same before the first step.
    """

    step: int
    total_steps: int
    trained: frozenset[int]
    scores: list[float | None] = field(default_factory=list)
    at_first: list[float | None] = field(default_factory=list)


@dataclass(frozen=True)
class Change:
    """How a strategy changes during training what trains. Its options are [`ChangingOptions`] at least.

    Args:
        choose (`Callable[[PlanInputs, Moment, Any], Choice | None]`):
            Chooses again; `None` leaves all as it is. It has to give the same answer to the same question: a run that is
            resumed asks again.
        watches (`str`, *optional*): What it looks at: the layers' `"gradients"`, or their `"sensitivity"` now.
    """

    choose: Callable[[PlanInputs, Moment, Any], Choice | None]
    watches: Literal["gradients", "sensitivity"] | None = None


@dataclass(frozen=True)
class Strategy:
    """A way to choose the layers that train.

    Args:
        name (`str`): Its name in code, settings and commands.
        summary (`str`): One line that says what it does.
        choose (`Callable[[PlanInputs, Any], Choice]`): Chooses, given what there is to look at and the options.
        options (`type`, *optional*, defaults to [`NoOptions`]):
            A dataclass that refuses wrong values when it is made, with a [`LayerTracerError`]. Its fields come from
            [`option`]; two strategies that share a name for an option share its type, default and help too.
        needs (`frozenset[str]`, *optional*):
            `"measurements"` of the model (a report), its `"weights"`, a `"budget"` to keep, a hybrid's `"new mixers"`.
        change ([`Change`], *optional*): How it chooses again during training; most strategies choose once.

    Example:

    ```python
    >>> from hf_layertracer.planning.strategies import STRATEGIES
    >>> STRATEGIES["freeze-deep"].options(freeze_ratio=0.25)
    RatioOptions(freeze_ratio=0.25)
    ```
    """

    name: str
    summary: str
    choose: Callable[[PlanInputs, Any], Choice]
    options: type = NoOptions
    needs: frozenset[Need] = frozenset()
    change: Change | None = None

    @property
    def option_names(self) -> list[str]:
        """Names of the options."""
        return [own.name for own in dataclasses.fields(self.options)]

    def check_options(self, given: dict[str, Any]) -> Any:
        """Makes the options dataclass.

        Args:
            given (`dict[str, Any]`): Options by name; the others keep their defaults.

        Returns:
            `Any`: The options.

        Raises:
            LayerTracerError: Unknown option or a value that the strategy cannot use.
        """
        unknown = sorted(set(given) - set(self.option_names))
        if unknown:
            takes = f"it takes {', '.join(self.option_names)}" if self.option_names else "it takes no options"
            raise LayerTracerError(f"The strategy {self.name!r} has no option {', '.join(unknown)}: {takes}.")
        hints = get_type_hints(self.options)
        several = {own.name for own in dataclasses.fields(self.options) if own.metadata["several"]}
        read = {name: as_meant(name, value, hints[name]) for name, value in given.items() if name not in several}
        return self.options(**{name: read.get(name, value) for name, value in given.items()})

    def check_inputs(self, inputs: PlanInputs) -> None:
        """Refuses inputs that lack what the strategy needs.

        Args:
            inputs ([`PlanInputs`]): What there is.

        Raises:
            LayerTracerError: Measurements or weights are missing.
        """
        if "measurements" in self.needs and inputs.report is None:
            raise LayerTracerError(
                f"The strategy {self.name!r} needs measurements: pass a report (from diagnose) to make_plan."
            )
        if "weights" in self.needs:
            if inputs.model is None:
                raise LayerTracerError(
                    f"The strategy {self.name!r} reads the weights: pass the model itself to make_plan."
                )
            if any(parameter.is_meta for parameter in inputs.model.parameters()):
                raise LayerTracerError(
                    f"The strategy {self.name!r} reads the weights: the model is on the meta device, without any."
                )


def option(
    default: Any,
    help: str,
    *,
    slider: tuple[float, float, float] | None = None,
    unit: tuple[str, int] | None = None,
    several: bool = False,
) -> Any:
    """A field of an options dataclass.

    Args:
        default (`Any`): Its default; `None` where there is none.
        help (`str`): One sentence for the command line, for `HfArgumentParser` and for the viewer.
        slider (`tuple[float, float, float]`, *optional*): Lowest and highest value and step of a slider in the viewer.
        unit (`tuple[str, int]`, *optional*): A large unit that the viewer asks in: its name and what it stands for.
        several (`bool`, *optional*, defaults to `False`): Whether code may give a sequence; the strategy reads it.

    Returns:
        `dataclasses.Field`: The field.
    """
    return field(default=default, metadata={"help": help, "slider": slider, "unit": unit, "several": several})
