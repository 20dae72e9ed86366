"""Layer Sensitivity by measurement: perturb every layer, compare the outputs (arXiv 2605.11416)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor, nn

from ...config import DiagnosisConfig
from ...errors import LayerTracerError
from ...logs import get_logger
from ..ablation import ablated_outputs, zeroed
from ..divergence import jensen_shannon
from ..layer_stack import LayerStack
from ..perturbations import PERTURBATIONS, Draw, Perturbation
from ..summary import summarise_sensitivity
from .base import Batch, Measurement, Subject


logger = get_logger(__name__)

# With so many independent masks the standard error of the demo model's Layer Sensitivity is about 0.02 bits.
_DRAWS_WANTED = 256


class LayerSensitivity(Measurement):
    """The divergence that one perturbation of each layer causes, for every draw.

    Args:
        perturbation ([`Perturbation`]): What is done to the layers.
    """

    estimator: ClassVar[str] = "exact"

    def __init__(self, perturbation: Perturbation):
        self.perturbation = perturbation
        self.name = f"sensitivity ({perturbation.name})"

    @classmethod
    def chosen(cls, config: DiagnosisConfig) -> list[Self]:
        if config.estimator != cls.estimator:
            return []
        return [cls(PERTURBATIONS[name](config)) for name in config.perturbations]

    def start(self, subject: Subject) -> int:
        probes = len(subject.probes)
        self.repeats = (subject.config.repeats or math.ceil(_DRAWS_WANTED / probes)) if self.perturbation.random else 1
        self.draws = [Draw(probe, repeat, self.repeats) for probe in range(probes) for repeat in range(self.repeats)]
        self.sample = self._sample(subject.config)
        self.ablated = self.perturbation.ablated(subject.stack, subject.clean)
        self.problems: dict[int, str | None] = {}  # why replay was not used, for each length of prompts
        self.measured = np.full((subject.num_layers, len(self.draws)), np.nan)
        super().start(subject)
        return len(self.sample) * subject.num_layers

    def _sample(self, config: DiagnosisConfig) -> np.ndarray:
        """Numbers of the draws that are measured."""
        return np.arange(len(self.draws))

    def observe(self, batch: Batch) -> None:
        members = set(batch.members)
        numbers = [number for number in self.sample.tolist() if self.draws[number].probe in members]
        if not numbers:
            return
        self.problems[batch.clean.input_ids.shape[1]] = batch.replay_problem
        draws = [self.draws[number] for number in numbers]
        values = measure_draws(
            self.subject.stack, batch, self.perturbation, draws, self.subject.progress, self.ablated
        )
        if not np.isfinite(values).all():
            layer = int(np.flatnonzero(~np.isfinite(values).all(1))[0])
            raise LayerTracerError(
                f"Perturbing layer {layer} made the model's output NaN or infinite in {batch.clean.states[-1].dtype}: "
                "diagnose it in a wider data type."
            )
        self.measured[:, numbers] = values

    def result(self) -> dict[str, Any]:
        shape = (len(self.measured), len(self.subject.probes), self.repeats)
        return self._record(self.measured.reshape(shape).transpose(0, 2, 1), self.subject.tasks, estimate=False)

    def _path(self) -> tuple[str, str | None]:
        whole = {length: problem for length, problem in self.problems.items() if problem is not None}
        if not whole:
            return "replay", None
        reason = next(iter(whole.values()))
        if len(whole) == len(self.problems):
            return "full-forward", reason
        return "mixed", f"for prompts of {', '.join(map(str, sorted(whole)))} tokens, {reason}"

    def _record(self, values: np.ndarray, tasks: Sequence[str], **facts: Any) -> dict[str, Any]:
        path, reason = self._path()
        sensitivity = summarise_sensitivity(
            values,
            tasks,
            self.subject.config.diagnosis_seed,
            draws=len(self.draws),
            repeats=self.repeats,
            path=path,
            path_reason=reason,
            **facts,
        )
        return {"sensitivities": {self.perturbation.name: sensitivity}}


def measure_draws(
    stack: LayerStack,
    batch: Batch,
    perturbation: Perturbation,
    draws: Sequence[Draw],
    progress: Callable[[int], object],
    ablated: Sequence[Sequence[nn.Module]] | None = None,
) -> np.ndarray:
    """The divergence that each draw causes in each layer, for draws on one batch of probes.

    Args:
        stack ([`LayerStack`]): The model's layers.
        batch ([`Batch`]): The probes. Its number of rows is halved where memory runs out all the same.
        perturbation ([`Perturbation`]): What is done to the layers' outputs.
        draws (`Sequence[Draw]`): What to measure.
        progress (`Callable[[int], object]`): Called with the number of values just measured.
        ablated (`Sequence[Sequence[nn.Module]]`, *optional*): Modules of each layer that return zero while it runs.

    Returns:
        `np.ndarray`: Jensen-Shannon divergences in bits, of shape `(layers, draws)`.
    """
    values = np.empty((stack.num_layers, len(draws)))
    outputs = batch.clean.states[1:]
    if ablated is not None and batch.replay_problem is None:
        outputs = ablated_outputs(stack, batch.clean, ablated)
    start, rows = 0, batch.rows
    while start < len(draws):
        chunk = slice(start, min(start + rows, len(draws)))
        try:
            values[:, chunk] = _measure_rows(
                stack, batch, rows, perturbation, draws[chunk], progress, ablated, outputs
            )
        except RuntimeError as error:
            if not should_reduce_batch_size(error) or rows == 1:
                raise
            rows = min(rows, (chunk.stop - start) * stack.num_layers) // 2
            logger.warning_once(f"Out of memory: the diagnosis goes on with batches of {rows} rows.")
            continue
        start = chunk.stop
    return values


def _measure_rows(
    stack: LayerStack,
    batch: Batch,
    limit: int,
    perturbation: Perturbation,
    draws: Sequence[Draw],
    progress: Callable[[int], object],
    ablated: Sequence[Sequence[nn.Module]] | None,
    outputs: Sequence[Tensor],
) -> np.ndarray:
    clean, replay = batch.clean, batch.replay_problem is None
    rows = torch.tensor([batch.members.index(draw.probe) for draw in draws])
    ids, reference = (tensor[rows.to(tensor.device)] for tensor in (clean.input_ids, clean.logits))
    perturb = perturbation.on(draws, clean.width)
    divergences = []
    # As many layers share a forward pass as fill it: small batches leave most of a machine idle.
    layers_per_pass = max(1, limit // len(draws)) if replay else 1
    for first in range(0, stack.num_layers, layers_per_pass):
        layers = range(first, min(first + layers_per_pass, stack.num_layers))
        if replay:
            ends = [(clean.inputs[layer], outputs[layer]) for layer in layers]
            answers = [
                perturb(layer, *(state[rows.to(state.device)] for state in pair))
                for layer, pair in zip(layers, ends, strict=True)
            ]
            perturbed = stack.replay(clean, first, answers, ids)
        else:
            with zeroed(ablated[first] if ablated is not None else []):
                perturbed = stack.patch(clean, first, partial(perturb, first), ids)[None]
        divergences += [jensen_shannon(reference, logits).double().cpu() for logits in perturbed]
        progress(len(draws) * len(layers))
    return torch.stack(divergences).numpy()
