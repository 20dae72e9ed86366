"""How to choose the layers that train: one function a strategy, its keyword arguments the strategy's options.

To add a strategy, write its function here and name it in `STRATEGIES`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real

import numpy as np
from torch import nn

from ..errors import LayerTracerError
from ..records import ModelFacts, ReportData
from .cost import bytes_per_element, layer_names, outside_elements, trainable_elements
from .weight_snr import layer_snr


@dataclass(frozen=True)
class Situation:
    """What a strategy may look at.

    Args:
        facts ([`ModelFacts`]): The model's layers and parameters.
        report ([`ReportData`], *optional*): Measurements.
        model (`nn.Module`, *optional*): The model itself, for strategies that read weights.
        wanted (`frozenset[str]`, *optional*):
            Which of `"embeddings"`, `"norm"` and `"head"` train whatever the strategy says.
    """

    facts: ModelFacts
    report: ReportData | None = None
    model: nn.Module | None = None
    wanted: frozenset[str] = frozenset()

    @property
    def num_layers(self) -> int:
        return self.facts.num_layers

    def measured(self, strategy: str) -> ReportData:
        if self.report is None:
            raise LayerTracerError(
                f"The strategy {strategy!r} needs measurements: pass a report (from diagnose) to make_plan."
            )
        return self.report


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


def freeze_deep(situation: Situation, *, freeze_ratio: float = 0.5) -> Choice:
    """The papers' rule: train the shallow layers, freeze the deep ones."""
    count = _number_frozen(situation, freeze_ratio)
    trained = set(range(situation.num_layers - count))
    return Choice(
        trained,
        f"Deep layers execute the task and are stable, shallow layers are sensitive: train shallow, freeze deep "
        f"(arXiv 2605.11416), {freeze_ratio:.0%} of the depth frozen.{_what_was_measured(situation, trained)}",
    )


def freeze_shallow(situation: Situation, *, freeze_ratio: float = 0.5) -> Choice:
    """The opposite allocation, as a control."""
    count = _number_frozen(situation, freeze_ratio)
    trained = set(range(count, situation.num_layers))
    return Choice(
        trained,
        f"The opposite of the papers' rule, as a control: {freeze_ratio:.0%} of the depth frozen from the embedding up."
        f"{_what_was_measured(situation, trained)}",
    )


def full(situation: Situation) -> Choice:
    """Every layer trains."""
    return Choice(set(range(situation.num_layers)), "Every parameter that could train before does: full training.")


def task_particle(situation: Situation) -> Choice:
    """Freeze from the measured Task Particle on."""
    particle = situation.measured("task-particle").task_particle
    if particle.layer is None:
        raise LayerTracerError(
            "The task particle is unresolved for every probe, so there is no layer to freeze from. Use probes that the "
            "model can answer, or another strategy."
        )
    interval = ", 95 % interval {:g} to {:g}".format(*particle.interval) if particle.interval else ""
    first_frozen = math.floor(particle.layer)
    if first_frozen == 0:
        raise LayerTracerError(
            "The task particle is at layer 0: freezing from there on would leave no layer to train."
        )
    return Choice(
        set(range(first_frozen)),
        f"The model begins to execute the probes' tasks at layer {particle.layer:g} (median{interval}): layers before it "
        "train, it and all after it are frozen.",
    )


def sensitivity(situation: Situation, *, freeze_ratio: float = 0.5) -> Choice:
    """Train the most sensitive layers."""
    scores = situation.measured("sensitivity").sensitivity
    trained = _highest(situation, scores.mean, freeze_ratio)
    kind = "estimated" if scores.estimate else "measured"
    return Choice(
        trained,
        f"The layers whose perturbation moves the output most train ({kind} sensitivity at least "
        f"{min(scores.mean[layer] for layer in trained):.3f} bits); the {freeze_ratio:.0%} least sensitive are frozen.",
    )


def block_influence(situation: Situation, *, freeze_ratio: float = 0.5) -> Choice:
    """Train the layers that change the hidden state most (ShortGPT, arXiv 2403.03853), as a control."""
    scores = situation.measured("block-influence").block_influence
    return Choice(
        _highest(situation, scores, freeze_ratio),
        "As a control, the layers that turn the hidden state most train (block influence, arXiv 2403.03853); the "
        f"{freeze_ratio:.0%} with the least influence are frozen.",
    )


def weight_snr(situation: Situation, *, freeze_ratio: float = 0.5) -> Choice:
    """Train the layers whose weights have the highest signal-to-noise ratio (Spectrum, arXiv 2406.06623)."""
    if situation.model is None:
        raise LayerTracerError("The strategy 'weight-snr' reads the weights: pass the model itself to make_plan.")
    if any(parameter.is_meta for parameter in situation.model.parameters()):
        raise LayerTracerError(
            "The strategy 'weight-snr' reads the weights: the model is on the meta device, without any."
        )
    return Choice(
        _highest(situation, layer_snr(situation.model, situation.facts), freeze_ratio),
        "As a control that looks at no data, the layers whose weight matrices have the highest signal-to-noise ratio "
        f"train (Spectrum, arXiv 2406.06623); the {freeze_ratio:.0%} with the lowest are frozen.",
    )


def budget(
    situation: Situation, *, max_trainable_parameters: int | None = None, max_memory: int | None = None
) -> Choice:
    """Train the most sensitive layers that fit a number of parameters, or of bytes for weights, gradients and Adam."""
    facts = situation.facts
    scores = situation.measured("budget").sensitivity.mean
    if max_memory is not None:
        element = bytes_per_element(facts)
        total = trainable_elements(facts, everything=True)
        allowed = (max_memory - total * element) // (element + 8)
        limit = f"{max_memory} bytes for weights, gradients and Adam's moments"
    else:
        allowed, limit = max_trainable_parameters, f"{max_trainable_parameters} trainable parameters"
    allowed -= outside_elements(facts, situation.wanted)
    trained: set[int] = set()
    for layer in sorted(range(situation.num_layers), key=lambda layer: -scores[layer]):
        if trainable_elements(facts, layers={*trained, layer}) <= allowed:
            trained.add(layer)
    if not trained:
        smallest = min(trainable_elements(facts, layers={layer}) for layer in range(situation.num_layers))
        raise LayerTracerError(
            f"No layer fits a budget of {limit}: it leaves room for {max(allowed, 0)} parameters and the smallest layer "
            f"has {smallest}."
        )
    return Choice(
        trained, f"The most sensitive layers that fit into {limit} train; all else is frozen.", outside=set()
    )


def explicit(situation: Situation, *, train_layers: str | int | Sequence[int | str]) -> Choice:
    """Train the layers that the user names: indices, slices (`"0:8"`, `"::2"`), ranges (`"0-7"`) or regular expressions."""
    entries = train_layers.split(",") if isinstance(train_layers, str) else train_layers
    entries = list(entries) if isinstance(entries, Iterable) else [entries]
    if isinstance(train_layers, str) and not all(_is_index(entry) for entry in entries):
        entries = [train_layers]  # a regular expression may hold commas
    indices: set[int] = set()
    patterns: list[str] = []
    for entry in entries:
        if not isinstance(entry, Integral | str) or isinstance(entry, bool):
            raise LayerTracerError(
                f"Layers are named by numbers or text, such as train_layers='0-7', not by {entry!r}."
            )
        if not isinstance(entry, str) or _is_index(entry):
            indices |= _parse_indices(entry, situation.num_layers)
        else:
            patterns.append(entry)
    if not patterns:
        return Choice(indices, f"The layers were named by the user: {train_layers}.")
    if indices:
        raise LayerTracerError(f"Name layers either by index or by regular expression, not both: {train_layers!r}.")
    return _by_pattern(situation, patterns)


def random(situation: Situation, *, freeze_ratio: float = 0.5, plan_seed: int = 0) -> Choice:
    """Train random layers, as a control (one draw of LISA, arXiv 2403.17919)."""
    count = _number_frozen(situation, freeze_ratio)
    chosen = np.random.default_rng(plan_seed).permutation(situation.num_layers)[count:]
    return Choice(
        {int(layer) for layer in chosen},
        f"As a control, random layers train (seed {plan_seed}) and {freeze_ratio:.0%} of the depth is frozen.",
    )


STRATEGIES: dict[str, Callable[..., Choice]] = {
    "freeze-deep": freeze_deep,
    "freeze-shallow": freeze_shallow,
    "full": full,
    "task-particle": task_particle,
    "sensitivity": sensitivity,
    "budget": budget,
    "explicit": explicit,
    "random": random,
    "block-influence": block_influence,
    "weight-snr": weight_snr,
}


def _number_frozen(situation: Situation, freeze_ratio: float) -> int:
    if not isinstance(freeze_ratio, Real) or not 0 < freeze_ratio < 1:
        raise LayerTracerError(
            f"freeze_ratio must lie between 0 and 1, not at {freeze_ratio!r}. To freeze nothing, use the strategy 'full'."
        )
    count = math.floor(situation.num_layers * freeze_ratio + 0.5)
    if count in (0, situation.num_layers):
        what = "freeze no layer" if count == 0 else "train no layer"
        raise LayerTracerError(f"freeze_ratio={freeze_ratio:g} would {what} of the {situation.num_layers}.")
    return count


def _highest(situation: Situation, scores: Sequence[float], freeze_ratio: float) -> set[int]:
    count = situation.num_layers - _number_frozen(situation, freeze_ratio)
    # A stable sort: of layers with equal scores, the shallower ones train.
    return {int(layer) for layer in np.argsort(-np.asarray(scores), kind="stable")[:count]}


def _what_was_measured(situation: Situation, trained: set[int]) -> str:
    """What the measurement says of this allocation, so that nobody has to take the rule on trust."""
    if situation.report is None:
        return " Nothing was measured on this model."
    scores, frozen = situation.report.sensitivity, set(range(situation.num_layers)) - trained
    ours, others = scores.mean_over(trained), scores.mean_over(frozen)
    difference = scores.difference(trained, frozen)
    if difference.beyond_error is None:
        verdict = "the report does not hold the error of this difference"
    elif not difference.beyond_error:
        verdict = f"no difference beyond the error of measurement ({difference.value:+.3f} ± {difference.stderr:.3f})"
    else:
        verdict = f"the trained ones are {'more' if ours > others else 'less'} sensitive"
    return (
        f" On this model the trained layers have a mean sensitivity of {ours:.3f} bits and the frozen ones of "
        f"{others:.3f}: {verdict}."
    )


_INDEX = re.compile(r"\s*(-?\d+|\d+\s*-\s*\d+|-?\d*:-?\d*(:-?\d*)?)\s*")


def _is_index(entry: str) -> bool:
    return bool(_INDEX.fullmatch(entry))


def _parse_indices(entry: int | str, num_layers: int) -> set[int]:
    if not isinstance(entry, str) or re.fullmatch(r"\s*-?\d+\s*", entry):
        indices = [int(entry)]
    elif ":" in entry:
        parts = [int(part) if part.strip() else None for part in entry.split(":")]
        if len(parts) == 3 and parts[2] == 0:
            raise LayerTracerError(f"The slice {entry!r} has a step of 0.")
        indices = list(range(num_layers))[slice(*parts)]
        if not indices:
            raise LayerTracerError(f"The slice {entry!r} holds none of the layers 0 to {num_layers - 1}.")
    else:
        first, last = (int(part) for part in entry.split("-"))
        # Up to one beyond the last layer: enough to say which one does not exist, whatever number was named.
        indices = list(range(first, min(last, max(first, num_layers)) + 1))
        if not indices:
            raise LayerTracerError(f"The range {entry!r} is empty.")
    for index in indices:
        if not -num_layers <= index < num_layers:
            raise LayerTracerError(
                f"Layer {index} does not exist: the model has {num_layers} layers, 0 to {num_layers - 1}."
            )
    return {index % num_layers for index in indices}


def _by_pattern(situation: Situation, patterns: list[str]) -> Choice:
    facts = situation.facts
    try:
        compiled = [re.compile(pattern) for pattern in patterns]
    except re.error as error:
        raise LayerTracerError(f"{error.pattern!r} is not a regular expression: {error}.") from error
    names = {name: layer for layer in range(facts.num_layers) for name in layer_names(facts, layer)}
    groups = {"embeddings": facts.embeddings, "norm": facts.norm, "head": facts.head}
    everything = [*names, *(name for group in groups.values() for name in group)]
    for pattern in compiled:
        if not any(pattern.search(name) for name in everything):
            raise LayerTracerError(
                f"The pattern {pattern.pattern!r} matches no parameter. Names look like {', '.join(everything[:3])}."
            )

    def matching(candidates: Iterable[str]) -> list[str]:
        return [name for name in candidates if any(pattern.search(name) for pattern in compiled)]

    matched = matching(names)
    outside = {group for group, members in groups.items() if matching(members)}
    return Choice(
        {names[name] for name in matched},
        f"Parameters whose names match {' or '.join(patterns)} train: {len(matched)} of {len(names)} in the layers.",
        patterns,
        outside,
    )
