"""Layer Sensitivity by measurement: perturb every layer, compare the outputs (arXiv 2605.11416)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor, nn

from ...config import DiagnosisConfig
from ...errors import LayerTracerError
from ...logs import get_logger
from ...text import dtype_name
from ..ablation import ablated_outputs, zeroed
from ..divergence import jensen_shannon
from ..estimation import Estimate, dimensions_to_correct, estimate_means, mask_predictors, massive_shares
from ..layer_stack import LayerStack
from ..perturbations import PERTURBATIONS, Draw, Perturbation
from ..precision import Precision
from ..stopping import stopping_rule
from ..summary import summarise_sensitivity
from .base import Batch, Measurement, Subject


logger = get_logger(__name__)

# With so many masks the standard error of the demo model's Layer Sensitivity is about 0.02 bits.
_DRAWS_WANTED = 160
# Where a rule decides when to stop, it is asked after about so many draws each time, and overruled in the end.
_DRAWS_PER_LOOK = 64
_DRAWS_AT_MOST = 2048


class LayerSensitivity(Measurement):
    """The divergence that one perturbation of each layer causes, for every draw.

    Args:
        perturbation ([`Perturbation`]): What is done to the layers.
    """

    def __init__(self, perturbation: Perturbation):
        self.perturbation = perturbation
        self.name = f"sensitivity ({perturbation.name})"

    @classmethod
    def chosen(cls, config: DiagnosisConfig) -> list[Self]:
        return [cls(PERTURBATIONS[name](config)) for name in config.perturbations]

    def start(self, subject: Subject) -> int:
        super().start(subject)
        config = subject.config
        self.asked = self._asked(config, len(subject.probes))
        self.place = {probe: number for number, probe in enumerate(self.asked)}
        probes = len(self.asked)
        self.rule = stopping_rule(config, subject.num_layers) if self.perturbation.random else None
        wanted = _DRAWS_WANTED if self.rule is None else _DRAWS_AT_MOST
        self.repeats = (config.repeats or math.ceil(wanted / probes)) if self.perturbation.random else 1
        self.stopped: str | None = None
        self.seen = 0  # repeats of all probes that were measured
        self.look = self._next_look()  # and those that the next batches are measured with
        self.ablated = self.perturbation.ablated(subject.stack, subject.clean)
        self.problems: dict[int, str | None] = {}  # why replay was not used, for each length of prompts
        self.values = np.full((subject.num_layers, self.repeats, probes), np.nan)
        # What is not random is measured once, and exactly.
        self.precision = Precision(subject) if self.perturbation.random else None
        self.shares = np.zeros((subject.num_layers, subject.clean.width))
        return self._work()

    def _asked(self, config: DiagnosisConfig, probes: int) -> list[int]:
        """Numbers of the probes that are measured."""
        if self.perturbation.random or config.skip_probes is None or config.skip_probes >= probes:
            return list(range(probes))
        rng = np.random.default_rng((config.diagnosis_seed, probes))
        return sorted(rng.choice(probes, config.skip_probes, replace=False).tolist())

    def _next_look(self) -> int:
        left = self.repeats - self.seen
        return left if self.rule is None else min(left, math.ceil(_DRAWS_PER_LOOK / len(self.asked)))

    def _work(self) -> int:
        return self.look * len(self.asked) * self.subject.num_layers

    def replays(self, probe: int) -> bool:
        return probe in self.place

    def observe(self, batch: Batch) -> None:
        members = [probe for probe in batch.members if probe in self.place]
        if not members:
            return
        probes, repeats = len(self.subject.probes), range(self.seen, self.seen + self.look)
        self.problems[batch.clean.input_ids.shape[1]] = batch.replay_problem
        draws = [Draw(probe, repeat, probes) for probe in members for repeat in repeats]
        if self.precision is not None:
            self.precision.check(batch, self.perturbation, draws)
        values = measure_draws(
            self.subject.stack,
            batch,
            self.perturbation,
            draws,
            self.subject.progress,
            self.ablated,
            None if self.precision is None else self.precision.dtype,
        )
        if not np.isfinite(values).all():
            layer = int(np.flatnonzero(~np.isfinite(values).all(1))[0])
            raise LayerTracerError(
                f"Perturbing layer {layer} made the model's output NaN or infinite in {batch.clean.states[-1].dtype}: "
                "diagnose it in a wider data type."
            )
        self.values[:, [draw.repeat for draw in draws], [self.place[draw.probe] for draw in draws]] = values
        if not self.seen:
            self.shares += massive_shares(batch.clean)

    def more(self) -> int:
        self.seen += self.look
        self.look = 0
        if self.rule is not None:
            estimate, _ = self._estimate()
            self.stopped = self.rule(estimate, at_the_end=self.seen == self.repeats)
        if self.stopped is None:
            self.look = self._next_look()
        return self._work()

    def _estimate(self) -> tuple[Estimate, int]:
        """The means over all draws so far, and the number of massive dimensions that they are corrected for."""
        probes, width = len(self.subject.probes), self.subject.clean.width
        draws = [Draw(probe, repeat, probes) for repeat in range(self.seen) for probe in self.asked]
        masks = self.perturbation.masks(draws, width)
        dimensions = 0 if masks is None else dimensions_to_correct(len(draws), probes)
        predictors = None if not dimensions else mask_predictors(masks.numpy(), self.shares, dimensions)
        designs = np.array([self.perturbation.design(draw, width) for draw in draws])
        values = self.values[:, : self.seen].reshape(self.subject.num_layers, -1)
        return estimate_means(values, np.array([draw.probe for draw in draws]), designs, predictors), dimensions

    def result(self) -> dict[str, Any]:
        estimate, dimensions = self._estimate()
        whole = {length: problem for length, problem in self.problems.items() if problem is not None}
        path, reason = "replay", next(iter(whole.values()), None)
        if whole:
            path = "full-forward" if len(whole) == len(self.problems) else "mixed"
        if path == "mixed":
            reason = f"for prompts of {', '.join(map(str, sorted(whole)))} tokens, {reason}"
        sensitivity = summarise_sensitivity(
            estimate,
            [self.subject.tasks[probe] for probe in self.asked],
            self.subject.config.diagnosis_seed,
            draws=self.seen * len(self.asked),
            repeats=self.seen,
            path=path,
            path_reason=reason,
            massive_dimensions=dimensions,
            stopped=self.stopped,
            compute_dtype=_name(self.precision),
            compute_error=None if self.precision is None else self.precision.error,
            compute_problem=None if self.precision is None else self.precision.problem,
        )
        return {"sensitivities": {self.perturbation.name: sensitivity}}


def _name(precision: Precision | None) -> str | None:
    dtype = None if precision is None else precision.dtype
    return None if dtype is None else dtype_name(dtype)


def measure_draws(
    stack: LayerStack,
    batch: Batch,
    perturbation: Perturbation,
    draws: Sequence[Draw],
    progress: Callable[[int], object],
    ablated: Sequence[Sequence[nn.Module]] | None = None,
    compute_dtype: torch.dtype | None = None,
) -> np.ndarray:
    """The divergence that each draw causes in each layer, for draws on one batch of probes.

    Args:
        stack ([`LayerStack`]): The model's layers.
        batch ([`Batch`]): The probes. Its number of rows is halved where memory runs out all the same.
        perturbation ([`Perturbation`]): What is done to the layers' outputs.
        draws (`Sequence[Draw]`): What to measure.
        progress (`Callable[[int], object]`): Called with the number of values just measured.
        ablated (`Sequence[Sequence[nn.Module]]`, *optional*): Modules of each layer that return zero while it runs.
        compute_dtype (`torch.dtype`, *optional*): What replayed layers compute in, if not in their own data type.

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
                stack, batch, rows, perturbation, draws[chunk], progress, ablated, outputs, compute_dtype
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
    compute_dtype: torch.dtype | None,
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
            perturbed = stack.replay(clean, first, answers, ids, compute_dtype)
        else:
            with zeroed(ablated[first] if ablated is not None else []):
                perturbed = stack.patch(clean, first, partial(perturb, first), ids)[None]
        divergences += [jensen_shannon(reference, logits).double().cpu() for logits in perturbed]
        progress(len(draws) * len(layers))
    return torch.stack(divergences).numpy()
