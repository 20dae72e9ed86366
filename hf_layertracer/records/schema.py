"""The report: what was measured, what was decided and what came of it. Pure data; knows nothing of models or files.

Layers are numbered 0 to L - 1 everywhere. Every list "per layer" has L entries; lens curves have L + 1, the embedding's
first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


SCHEMA_VERSION = 1

Probability = Annotated[float, Field(ge=0, le=1)]
Bits = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
# What is drawn and compared: far beyond any measurement, and near enough that sums and squares of it stay finite.
Error = Annotated[float, Field(ge=0, le=1e30)]
Real = Annotated[float, Field(ge=-1e30, le=1e30)]
Count = Annotated[int, Field(ge=0, lt=2**63)]


class Record(BaseModel):
    """Base of all parts of a report: unknown fields of newer minor versions are dropped, NaN is refused."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class LayerFacts(Record):
    """What one decoder layer is made of.

    Args:
        kind (`str`):
            `"full_attention"`, `"linear_attention"`, `"mamba"`, ...: from the config, else from the classes inside the
            layer; with `"+moe"` behind it where the layer routes to experts.
        parameters (`dict[str, int]`): Number of elements of each parameter, by its name inside the layer.
        frozen (`list[str]`): Those that did not require a gradient before any plan.
    """

    kind: str
    parameters: dict[str, Count]
    frozen: list[str] = []


class ModelFacts(Record):
    """What a plan has to know of a model, so that none has to be loaded to make one.

    Args:
        id (`str`, *optional*): Hub id, or the name of a local folder.
        revision (`str`, *optional*): Commit on the Hub.
        architecture (`str`): Class of the model.
        model_type (`str`, *optional*): transformers' model type.
        dtype (`str`): Data type of the parameters.
        layers_path (`str`): Dotted path of the list of decoder layers.
        layers (`list[LayerFacts]`): The decoder layers.
        embeddings, norm, head, other (`dict[str, int]`):
            Number of elements of each parameter outside the layers, by its full name; `other` holds what lies outside
            the text decoder and is never frozen or unfrozen.
        tied (`bool`): Whether embeddings and head share their matrix, which then stands in `embeddings`.
        shared (`dict[str, list[int]]`):
            Parameters that stand in several layers, by full name with the indices of these layers. They are counted in
            the first.
        frozen (`list[str]`): Parameters outside the layers that did not require a gradient before any plan.
    """

    id: str | None = None
    revision: str | None = None
    architecture: str
    model_type: str | None = None
    dtype: str
    layers_path: str
    layers: Annotated[list[LayerFacts], Field(min_length=1)]
    embeddings: dict[str, Count]
    norm: dict[str, Count]
    head: dict[str, Count]
    other: dict[str, Count] = {}
    tied: bool
    shared: dict[str, list[Count]] = {}
    frozen: list[str] = []

    @property
    def num_layers(self) -> int:
        return len(self.layers)


class ProbeRecord(Record):
    """One probe as it was asked: texts are cut to 200 characters."""

    prompt: str | None
    target: str | None
    task: str
    tokens: Count
    probability: Probability
    correct: bool


class ProbeFacts(Record):
    """The probes of a diagnosis.

    Args:
        sha256 (`str`): Hash of all token ids, targets and tasks.
        tasks (`dict[str, int]`): Number of probes of each task.
        accuracy (`float`): Fraction of probes whose target is the model's likeliest next token.
        mean_log_probability (`float`): Mean natural logarithm of the target's probability.
        accuracy_by_task (`dict[str, float]`): The accuracy of each task.
        items (`list[ProbeRecord]`): The probes.
    """

    count: Count
    sha256: str
    tasks: dict[str, Count]
    accuracy: Probability
    mean_log_probability: Real
    accuracy_by_task: dict[str, Probability]
    items: list[ProbeRecord]


class Lens(Record):
    """What the model would answer if it stopped after each layer.

    Args:
        valid (`bool`): Whether the reading at the last layer is the model's own output.
        reason (`str`, *optional*): Why it is not.
        error (`float`, *optional*): Largest difference between the two, as a fraction of the largest probability.
        mean_probability (`list[float]`): Mean lens probability of the targets, L + 1 values, the embedding's first.
        stderr (`list[float]`): Standard errors of these means over probes.
        by_task (`dict[str, list[float]]`): The mean curve of each task.
        per_probe (`list[list[float]]`): The curve of each probe.
        top_tokens (`list[list[str]]`, *optional*): The likeliest token at each layer, for each probe.
    """

    valid: bool
    reason: str | None = None
    error: NonNegative | None = None
    mean_probability: list[Probability] = []
    stderr: list[Error] = []
    by_task: dict[str, list[Probability]] = {}
    per_probe: list[list[Probability]] = []
    top_tokens: list[list[str]] | None = None


class TaskParticleSummary(Record):
    """Where along the depth a set of probes is executed.

    Args:
        layer (`float`, *optional*): Median over the resolved probes; `None` where there is none.
        quartiles (`tuple[float, float]`, *optional*): First and third quartile.
        interval (`tuple[float, float]`, *optional*): Bootstrap 95 % interval of the median.
        mean_curve_layer (`int`, *optional*): Task particle of the mean lens curve.
        unresolved (`int`): Number of probes without one.
    """

    layer: NonNegative | None
    quartiles: tuple[NonNegative, NonNegative] | None
    interval: tuple[NonNegative, NonNegative] | None
    mean_curve_layer: Count | None
    unresolved: Count


class TaskParticle(TaskParticleSummary):
    """[`TaskParticleSummary`] of all probes, with each probe's own layer and each task's summary."""

    per_probe: list[Count | None]
    by_task: dict[str, TaskParticleSummary]


class Sensitivity(Record):
    """How far each layer's disturbance moves the output: Jensen-Shannon divergence in bits, from 0 to 1.

    Args:
        estimate (`bool`): Whether the values are estimated from gradients rather than measured.
        mean (`list[float]`): Layer Sensitivity per layer.
        stderr (`list[float]`): Standard errors over probes, whose disturbances are independent.
        vulnerable_layer (`int`): The layer with the largest mean.
        contenders (`list[int]`):
            The layers that cannot be told from it: their difference is below two standard errors of the difference.
        shallow_minus_deep (`float`): Mean of the shallow half of the layers minus that of the deep half.
        shallow_minus_deep_stderr (`float`): Its standard error, from per-probe differences.
        rank_stability (`float`, *optional*): Mean rank correlation between the layers' means on halves of the probes.
        by_task (`dict[str, list[float]]`): Layer Sensitivity on the probes of each task.
        draws (`int`): Number of disturbances of each layer: probes times repeats.
        repeats (`int`): Random draws per probe.
        path (`str`): `"replay"` where only the layers after the disturbed one ran, `"full-forward"` otherwise.
        path_reason (`str`, *optional*): Why the layers could not be replayed.
        calibration_draws (`int`, *optional*): Of an estimate: how many draws were measured to calibrate it.
    """

    estimate: bool
    mean: list[Bits]
    stderr: list[Error]
    vulnerable_layer: Count
    contenders: list[Count]
    shallow_minus_deep: Real
    shallow_minus_deep_stderr: Error
    rank_stability: Real | None
    by_task: dict[str, list[Bits]]
    draws: Count
    repeats: Count
    path: str
    path_reason: str | None = None
    calibration_draws: Count | None = None


class Savings(Record):
    """What a plan saves against training every parameter that could be trained.

    FLOPs are those of matrix products with parameters (2 per parameter and token forwards, 2 for the gradient of the
    input, 2 for that of the weight); attention scores, norms and the embedding look-up are left out.

    Args:
        trainable_parameters, trainable_parameters_full (`int`): Parameters that train.
        total_parameters (`int`): All parameters.
        optimizer_bytes, optimizer_bytes_full (`int`): Adam's two moments in float32.
        gradient_bytes, gradient_bytes_full (`int`): Gradients in the parameters' data type.
        flops_per_token, flops_per_token_full (`int`): Of one training step, forward and backward.
    """

    trainable_parameters: Count
    trainable_parameters_full: Count
    total_parameters: Count
    optimizer_bytes: Count
    optimizer_bytes_full: Count
    gradient_bytes: Count
    gradient_bytes_full: Count
    flops_per_token: Count
    flops_per_token_full: Count


class LayerPlan(Record):
    """For every layer, train or freeze; likewise for embeddings, final norm and head.

    Args:
        strategy (`str`): Name of the strategy that made it.
        options (`dict[str, Any]`): The strategy's options.
        num_layers (`int`): Number of decoder layers of the model it is for.
        layers_path (`str`): Dotted path of their list in that model.
        trained_layers, frozen_layers (`list[int]`): Sorted layer indices; together they are all layers.
        train_embeddings, train_norm, train_head (`bool`): The parts outside the layers.
        patterns (`list[str]`):
            Regular expressions on parameter names. If there are any, inside the layers only parameters that match
            one train.
        reason (`str`): Why, in words.
        savings ([`Savings`]): What it saves.
    """

    strategy: str
    options: dict[str, Any] = {}
    num_layers: Annotated[int, Field(ge=1)]
    layers_path: str
    trained_layers: list[Count]
    frozen_layers: list[Count]
    train_embeddings: bool
    train_norm: bool
    train_head: bool
    patterns: list[str] = []
    reason: str
    savings: Savings

    @model_validator(mode="after")
    def _layers_are_complete(self) -> LayerPlan:
        if sorted(self.trained_layers + self.frozen_layers) != list(range(self.num_layers)):
            raise ValueError(f"trained and frozen layers are not the {self.num_layers} layers of the model, each once")
        return self


class Snapshot(Record):
    """A later diagnosis with the same probes and settings, during or after training.

    Args:
        step (`int`): Optimizer step at which it was made.
        lens_mean_probability (`list[float]`): As `Lens.mean_probability`.
        task_particle (`float`, *optional*): As `TaskParticle.layer`.
        task_particle_interval (`tuple[float, float]`, *optional*): As `TaskParticle.interval`.
        sensitivity, sensitivity_stderr (`list[float]`): As `Sensitivity.mean` and `.stderr`.
        accuracy, mean_log_probability (`float`): As in `ProbeFacts`.
    """

    step: Count
    lens_mean_probability: list[Probability]
    task_particle: NonNegative | None
    task_particle_interval: tuple[NonNegative, NonNegative] | None
    sensitivity: list[Bits]
    sensitivity_stderr: list[Error]
    accuracy: Probability
    mean_log_probability: Real


class TrainingOutcome(Record):
    """What came of a training run with the plan.

    Args:
        steps (`int`): Optimizer steps made in this process.
        seconds (`float`): Wall time of these steps, without evaluating, saving and diagnosing.
        tokens (`int`, *optional*): Tokens seen, padding included.
        tokens_per_second (`float`, *optional*): Over all processes.
        peak_memory_bytes (`int`): Peak of the accelerator's allocated memory, or of the process where there is none.
        peak_memory_of (`str`): `"cuda"` or `"process"`.
        trainable_parameters (`int`): Parameters counted in the optimizer.
        train_loss (`float`, *optional*): Mean training loss.
        eval_loss_before, eval_loss_after (`float`, *optional*): First and last evaluation loss that was logged.
    """

    steps: Count
    seconds: NonNegative
    tokens: Count | None = None
    tokens_per_second: NonNegative | None = None
    peak_memory_bytes: Count
    peak_memory_of: str
    trainable_parameters: Count
    train_loss: Real | None = None
    eval_loss_before: Real | None = None
    eval_loss_after: Real | None = None


class ReportData(Record):
    """All fields of a report; [`LayerTracerReport`] adds files.

    Args:
        schema_version (`int`): Version of this layout.
        created (`str`): UTC time in ISO 8601.
        versions (`dict[str, str]`): Versions of the libraries that measured.
        model ([`ModelFacts`]): The model.
        config (`dict[str, Any]`): The diagnosis settings.
        probes ([`ProbeFacts`]): The probes.
        lens ([`Lens`]): The lens curves.
        task_particle ([`TaskParticle`]): Where the tasks are executed.
        sensitivity ([`Sensitivity`]): What each layer's disturbance does.
        block_influence (`list[float]`):
            1 - cosine similarity of each layer's input and output (ShortGPT, arXiv 2403.03853), mean over all prompt
            positions.
        plan ([`LayerPlan`], *optional*): What to train.
        history (`list[Snapshot]`): Later diagnoses.
        training ([`TrainingOutcome`], *optional*): The training run.
        durations (`dict[str, float]`): Seconds that each part took.
        memory (`dict[str, int]`): The memory budget in bytes and the batches that it allowed.
        notes (`list[str]`): What a reader must know to read the numbers right.
    """

    schema_version: int = SCHEMA_VERSION
    created: str
    versions: dict[str, str]
    model: ModelFacts
    config: dict[str, Any]
    probes: ProbeFacts
    lens: Lens
    task_particle: TaskParticle
    sensitivity: Sensitivity
    block_influence: list[float]
    plan: LayerPlan | None = None
    history: list[Snapshot] = []
    training: TrainingOutcome | None = None
    durations: dict[str, NonNegative] = {}
    memory: dict[str, Count] = {}
    notes: list[str] = []

    @property
    def num_layers(self) -> int:
        return self.model.num_layers

    def snapshot(self, step: int = 0) -> Snapshot:
        """This diagnosis in the form of a later one.

        Args:
            step (`int`, *optional*, defaults to `0`): The optimizer step at which it was made.

        Returns:
            [`Snapshot`]: What the two have in common.
        """
        return Snapshot(
            step=step,
            lens_mean_probability=self.lens.mean_probability,
            task_particle=self.task_particle.layer,
            task_particle_interval=self.task_particle.interval,
            sensitivity=self.sensitivity.mean,
            sensitivity_stderr=self.sensitivity.stderr,
            accuracy=self.probes.accuracy,
            mean_log_probability=self.probes.mean_log_probability,
        )

    @model_validator(mode="after")
    def _lengths_agree(self) -> ReportData:
        layers, probes = self.num_layers, self.probes.count
        expected = {
            "sensitivity.mean": (self.sensitivity.mean, layers),
            "sensitivity.stderr": (self.sensitivity.stderr, layers),
            "block_influence": (self.block_influence, layers),
            "task_particle.per_probe": (self.task_particle.per_probe, probes),
            "probes.items": (self.probes.items, probes),
        }
        expected |= {f"sensitivity.by_task of {task!r}": (s, layers) for task, s in self.sensitivity.by_task.items()}
        if self.lens.mean_probability:
            expected["lens.mean_probability"] = (self.lens.mean_probability, layers + 1)
            expected["lens.stderr"] = (self.lens.stderr, layers + 1)
            expected["lens.per_probe"] = (self.lens.per_probe, probes)
        elif self.lens.per_probe or self.lens.by_task:
            raise ValueError("lens has curves of probes or tasks, but no mean_probability")
        if self.lens.top_tokens is not None:
            expected["lens.top_tokens"] = (self.lens.top_tokens, len(self.lens.per_probe))
        for snapshot in self.history:
            at = f"of the history at step {snapshot.step}"
            expected[f"sensitivity {at}"] = (snapshot.sensitivity, layers)
            expected[f"sensitivity_stderr {at}"] = (snapshot.sensitivity_stderr, layers)
            if snapshot.lens_mean_probability:
                expected[f"lens_mean_probability {at}"] = (snapshot.lens_mean_probability, layers + 1)
        for name, (values, length) in expected.items():
            if len(values) != length:
                raise ValueError(f"{name:.80} has {len(values)} entries, not {length}")
        for curve in [*self.lens.by_task.values(), *self.lens.per_probe, *(self.lens.top_tokens or [])]:
            if len(curve) != layers + 1:
                raise ValueError(f"a lens curve has {len(curve)} entries, not {layers + 1}")
        for layer in self._named_layers():
            if layer >= layers:
                raise ValueError(f"layer {layer:g} does not exist: the model has {layers} layers")
        if self.plan is not None and self.plan.num_layers != layers:
            raise ValueError(f"the plan is for {self.plan.num_layers} layers, the model has {layers}")
        return self

    def _named_layers(self) -> Iterator[float]:
        """Every layer that a measurement points at."""
        yield from (self.sensitivity.vulnerable_layer, *self.sensitivity.contenders)
        yield from (layer for layer in self.task_particle.per_probe if layer is not None)
        for particle in (self.task_particle, *self.task_particle.by_task.values()):
            named = (
                particle.layer,
                particle.mean_curve_layer,
                *(particle.quartiles or ()),
                *(particle.interval or ()),
            )
            yield from (layer for layer in named if layer is not None)
        for snapshot in self.history:
            yield from (snapshot.task_particle_interval or ())
            if snapshot.task_particle is not None:
                yield snapshot.task_particle
