"""One diagnosis: what was measured of a model at one moment."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import Bits, Count, Error, NonNegative, Probability, Real, Record, is_long
from .lens import Lens
from .sensitivity import Sensitivity


HEADLINE = (
    "accuracy",
    "mean_log_probability",
    "task_particle",
    "vulnerable_layer",
    "highest_sensitivity",
    "mean_sensitivity",
    "shallow_minus_deep",
)


class TaskParticleSummary(Record):
    """Where along the depth a set of probes is executed.

    Args:
        layer (`float`, *optional*): Median over the resolved probes; `None` where there is none.
        quartiles (`tuple[float, float]`, *optional*): First and third quartile.
        interval (`tuple[float, float]`, *optional*): Bootstrap 95 % interval of the median.
        mean_curve_layer (`int`, *optional*): Task particle of the mean lens curve.
        unresolved (`int`, *optional*): Number of probes without one; `None` where it was not recorded.
    """

    layer: NonNegative | None
    quartiles: tuple[NonNegative, NonNegative] | None
    interval: tuple[NonNegative, NonNegative] | None
    mean_curve_layer: Count | None
    unresolved: Count | None

    def named_layers(self) -> list[float]:
        """Every layer that the summary points at."""
        named = (self.layer, self.mean_curve_layer, *(self.quartiles or ()), *(self.interval or ()))
        return [layer for layer in named if layer is not None]


class MaxRatio(TaskParticleSummary):
    """[`TaskParticleSummary`] by the second rule, with each probe's own layer.

    The layer at which the lens probability of the token that the model itself finally predicts changes most in proportion
    (arXiv 2605.11416). No probe is unresolved.

    Args:
        per_probe (`list[int]`): The layer of each probe.
    """

    per_probe: list[Count]


class TaskParticle(TaskParticleSummary):
    """[`TaskParticleSummary`] of all probes by the first rule, with each probe's own layer and each task's summary.

    The layer at which the lens probability of the target first rises by a set fraction of its maximum.

    Args:
        per_probe (`list[int | None]`): The task particle of each probe; `None` where the probe is unresolved.
        by_task (`dict[str, TaskParticleSummary]`): The summary of each task's probes.
        max_ratio ([`MaxRatio`], *optional*):
            What the second rule makes of the same lens; `None` without a lens, and in reports of schema version 1.
    """

    per_probe: list[Count | None]
    by_task: dict[str, TaskParticleSummary]
    max_ratio: MaxRatio | None = None


class ContextSensitivity(Record):
    """How far the lens distribution at the last position depends on what stands before it: JS divergence in bits.

    Some positions of the prompt, never the last, have their embeddings replaced by the prompt's mean embedding.

    Args:
        mean (`list[float]`): Divergence at each depth, L + 1 values, the embedding's first.
        stderr (`list[float]`): Their standard errors over probes.
        delta (`list[float]`): What each layer adds to it, L values.
        delta_stderr (`list[float]`): Their standard errors over probes.
        draws (`int`): Number of perturbations: probes times repeats.
    """

    mean: list[Bits]
    stderr: list[Error]
    delta: list[Real]
    delta_stderr: list[Error]
    draws: Count

    @property
    def stderr_known(self) -> bool:
        """Whether `stderr` and `delta_stderr` mean anything: those of a single probe are written as 0, but not known."""
        return any((*self.stderr, *self.delta_stderr))


class Scores(Record):
    """What the model answered to the probes.

    Args:
        accuracy (`float`): Fraction of probes whose target is the model's likeliest next token.
        mean_log_probability (`float`): Mean natural logarithm of the targets' probabilities.
        accuracy_by_task (`dict[str, float]`): The accuracy of each task.
        probability (`list[float]`): Probability of each probe's target.
        correct (`list[bool]`): Whether it is the likeliest token, for each probe.
        choice_accuracy (`float`, *optional*):
            Of multiple-choice questions: fraction whose target is the likeliest of the choices, whatever else the model
            may find likelier.
        choice_chance (`float`, *optional*): The same of an even guess.
    """

    accuracy: Probability
    mean_log_probability: Real
    accuracy_by_task: dict[str, Probability] = {}
    probability: list[Probability] = []
    correct: list[bool] = []
    choice_accuracy: Probability | None = None
    choice_chance: Probability | None = None


class Diagnosis(Record):
    """Everything that was measured of a model at one moment, with the report's probes and settings.

    The first diagnosis of a report is whole. In later ones of reports that were written with schema version 1, which kept
    only means, lists may be empty and values `None`.

    Args:
        step (`int`): Optimizer step at which it was made; 0 before training.
        lens ([`Lens`]): The lens curves.
        task_particle ([`TaskParticle`]): Where the tasks are executed.
        sensitivities (`dict[str, Sensitivity]`): What perturbing each layer does, by name of the perturbation.
        block_influence (`list[float]`):
            1 - cosine similarity of each layer's input and output (ShortGPT, arXiv 2403.03853), mean over all prompt
            positions.
        scores ([`Scores`]): What the model answered.
        context ([`ContextSensitivity`], *optional*):
            How much the context matters at each depth; `None` where the lens is not valid or no prompt has a context.
        noise_floor (`float`, *optional*):
            Divergence in bits that rounding alone causes, the larger of that in the shortest prompts and in the longest: no
            sensitivity below it means anything.
        durations (`dict[str, float]`): Seconds that each part took.
        memory (`dict[str, int]`): The memory budget in bytes and the batches that it allowed.
        notes (`list[str]`): What holds of this diagnosis and is not among the report's notes.
    """

    step: Count
    lens: Lens
    task_particle: TaskParticle
    sensitivities: Annotated[dict[str, Sensitivity], Field(min_length=1)]
    block_influence: list[float]
    scores: Scores
    context: ContextSensitivity | None = None
    noise_floor: Bits | None = None
    durations: dict[str, NonNegative] = {}
    memory: dict[str, Count] = {}
    notes: list[str] = []

    @property
    def perturbation(self) -> str:
        """The perturbation that was measured first."""
        return next(iter(self.sensitivities))

    @property
    def sensitivity(self) -> Sensitivity:
        """Layer Sensitivity under the perturbation that was measured first."""
        return self.sensitivities[self.perturbation]

    def headline(self) -> dict[str, float | None]:
        """The figures that are compared between diagnoses and between reports.

        Returns:
            `dict[str, float | None]`: One entry for each name of `HEADLINE`.
        """
        sensitivity = self.sensitivity
        return {
            "accuracy": self.scores.accuracy,
            "mean_log_probability": self.scores.mean_log_probability,
            "task_particle": self.task_particle.layer,
            "vulnerable_layer": sensitivity.vulnerable_layer,
            "highest_sensitivity": sensitivity.highest,
            "mean_sensitivity": sensitivity.mean_over(range(len(sensitivity.mean))),
            "shallow_minus_deep": sensitivity.shallow_minus_deep,
        }

    def check(self, num_layers: int, num_probes: int, whole: bool) -> None:
        """Refuses lists of another length than the model and the probes have, and layers that do not exist.

        Args:
            num_layers (`int`): Layers of the model.
            num_probes (`int`): Probes of the report.
            whole (`bool`): Whether nothing but the lens may be missing.

        Raises:
            ValueError: Something does not fit.
        """
        self.lens.check(num_layers, num_probes, whole)
        particle = self.task_particle
        is_long("block_influence", self.block_influence, num_layers, or_empty=not whole)
        is_long("task_particle.per_probe", particle.per_probe, num_probes, or_empty=not whole)
        is_long("scores.probability", self.scores.probability, num_probes, or_empty=not whole)
        is_long("scores.correct", self.scores.correct, num_probes, or_empty=not whole)
        if whole and None in (particle.unresolved, *(summary.unresolved for summary in particle.by_task.values())):
            raise ValueError("task_particle does not count the unresolved probes")
        named: list[float] = [layer for layer in particle.per_probe if layer is not None]
        rules = [particle.max_ratio] if particle.max_ratio is not None else []
        for rule in rules:
            is_long("task_particle.max_ratio.per_probe", rule.per_probe, num_probes)
            named += rule.per_probe
        if self.context is not None:
            for values, more in (("mean", 1), ("stderr", 1), ("delta", 0), ("delta_stderr", 0)):
                is_long(f"context.{values}", getattr(self.context, values), num_layers + more)
        for summary in (particle, *rules, *particle.by_task.values()):
            named += summary.named_layers()
        for name, sensitivity in self.sensitivities.items():
            _check_sensitivity(f"sensitivities.{name}", sensitivity, num_layers, whole)
            named += sensitivity.contenders or []
        named += self.lens.named_layers()
        for layer in named:
            if layer >= num_layers:
                raise ValueError(f"layer {layer:g} does not exist: the model has {num_layers} layers")


def _check_sensitivity(name: str, sensitivity: Sensitivity, num_layers: int, whole: bool) -> None:
    is_long(f"{name}.mean", sensitivity.mean, num_layers)
    is_long(f"{name}.stderr", sensitivity.stderr, num_layers)
    if whole and None in (sensitivity.contenders, sensitivity.shallow_minus_deep_stderr):
        raise ValueError(f"{name:.80} lacks its contenders or the standard error of its shallow minus its deep half")
    for task, values in sensitivity.by_task.items():
        is_long(f"{name}.by_task of {task!r}", values, num_layers)
    if sensitivity.covariance is not None:
        is_long(f"{name}.covariance", sensitivity.covariance, num_layers)
        for layer, row in enumerate(sensitivity.covariance):
            is_long(f"{name}.covariance of layer {layer}", row, layer + 1)
