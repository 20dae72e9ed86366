"""The diagnosis of a model: lens curves, Task Particle and Layer Sensitivity, in one report."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import nn
from tqdm.auto import tqdm
from transformers.utils import logging

from ..config import DiagnosisConfig
from ..distributed import is_main_process
from ..errors import LayerTracerError, UntraceableModelError
from ..logs import get_logger
from ..modeling import ModelParts, context_length, find_parts
from ..modeling.facts import model_facts
from ..modeling.preserve import preserved
from ..planning import make_plan
from ..probes import Probe, builtin_probes
from ..probes.encoding import EncodedProbe, encode_probes, equal_length_batches, probes_hash
from ..records import Diagnosis, Lens, ProbeFacts, ProbeRecord, Scores, Sensitivity
from ..report import LayerTracerReport
from .gradient import MASSIVE_DIMENSIONS, differentiating, massive_dimensions, predict_batch, regression_estimate
from .lens import read_lens
from .memory import BatchPlan, plan_batches
from .notes import notes_of
from .perturbation import dimension_mask
from .replay import CleanRun, LayerStack
from .score import check_prompts, check_targets, target_scores
from .sensitivity import TOLERANCE, Disturbance, Draw, check_replay, measure_batch
from .summary import by_task, summarise_lens, summarise_sensitivity, summarise_task_particle


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = get_logger(__name__)

# With so many independent masks the standard error of the demo model's Layer Sensitivity is about 0.02 bits.
_DRAWS_WANTED = 256
_CALIBRATION_SHARE = 5
_CALIBRATION_LIMITS = (48, 128)
_TEXT_LIMIT = 200


def diagnose(
    model: nn.Module,
    probes: Sequence[Probe] | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    config: DiagnosisConfig | None = None,
) -> LayerTracerReport:
    """Measures what each layer of a causal language model does.

    The model is left exactly as it was found, also when the diagnosis is interrupted: same training mode, no hook, no
    parameter or buffer touched, random states restored.

    Args:
        model (`nn.Module`): A causal language model, wrapped (DDP, PEFT, ...) or not.
        probes (`Sequence[Probe]`, *optional*): What to ask it; the probes of the package by default.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): Needed unless the probes are token ids.
        config ([`DiagnosisConfig`], *optional*): The settings.

    Returns:
        [`LayerTracerReport`]: The measurements, with the default plan (`"freeze-deep"`) where the model admits one.

    Raises:
        UntraceableModelError: The model is no causal language model, or its layers cannot be found or traced.
        LayerTracerError: The probes cannot be used, or the memory budget is too small.
    """
    config = config or DiagnosisConfig()
    probes = builtin_probes() if probes is None else list(probes)
    parts = find_parts(model, config.layers_path)
    encoded = encode_probes(probes, tokenizer, context_length(parts.model))
    facts = model_facts(parts)
    run = _Run(parts, encoded, config)
    # Whoever calls from inside inference_mode still gets gradients where an estimate needs them.
    with preserved(parts.model), torch.inference_mode(False), torch.no_grad():
        run.execute()
    tasks = [probe.task for probe in encoded]
    curves = run.curves if run.lens_problem is None else np.empty((0, 0))
    lens = (
        summarise_lens(curves, tasks, _decoded(run.top_tokens, tokenizer), run.lens_error)
        if run.lens_problem is None
        else Lens(valid=False, reason=run.lens_problem, error=run.lens_error)
    )
    report = LayerTracerReport(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={
            "python": platform.python_version(),
            **{name: version(name) for name in ("hf_layertracer", "torch", "transformers", "accelerate")},
        },
        model=facts,
        settings=config,
        probes=_probe_facts(probes, encoded, tokenizer),
        diagnoses=[
            Diagnosis(
                step=0,
                lens=lens,
                task_particle=summarise_task_particle(curves, tasks, config),
                sensitivities={config.perturbation: run.sensitivity(tasks)},
                block_influence=[float(f"{value:.7g}") for value in run.influence / len(encoded)],
                scores=_scores(tasks, run),
                durations={name: round(seconds, 3) for name, seconds in run.durations.items()},
                memory={
                    "budget_bytes": run.batches.budget,
                    "largest_batch_probes": run.largest_batch,
                    "largest_batch_rows": run.largest_rows,
                },
            )
        ],
    )
    report.notes = notes_of(report, run.not_run)
    try:
        report.set_plan(make_plan(report))
    except LayerTracerError as error:
        report.notes.append(f"No default plan: {error}")
    return report


@dataclass
class _Run:
    """The state of one diagnosis: what has been measured so far."""

    parts: ModelParts
    encoded: list[EncodedProbe]
    config: DiagnosisConfig
    batches: BatchPlan = field(init=False)
    durations: dict[str, float] = field(default_factory=dict)
    replay_problem: str | None = None
    lens_problem: str | None = None
    lens_error: float | None = None
    whole_prompts: bool = False
    largest_batch: int = 0
    largest_rows: int = 0

    def __post_init__(self) -> None:
        self.stack = LayerStack(self.parts)
        probes = len(self.encoded)
        self.repeats = 1 if self.config.perturbation == "skip" else self.config.repeats
        self.repeats = self.repeats or max(1, math.ceil(_DRAWS_WANTED / probes))
        self.log_probability = np.zeros(probes)
        self.correct = np.zeros(probes, dtype=bool)
        self.draws = [Draw(probe, repeat, self.repeats) for probe in range(probes) for repeat in range(self.repeats)]
        self.massive = torch.zeros(0)
        self.sample = self._sample()

    def _make_room(self, layers: int) -> None:
        probes = len(self.encoded)
        self.curves = np.zeros((probes, layers + 1))
        self.top_tokens = np.zeros((probes, layers + 1), dtype=np.int64)
        self.influence = np.zeros(layers)
        # Values by layer and number of the draw; of an estimate, `predicted` holds all and `measured` a sample.
        self.measured = np.full((layers, len(self.draws)), np.nan)
        self.predicted = np.full((layers, len(self.draws)), np.nan)

    @property
    def estimate(self) -> bool:
        return self.config.estimator == "gradient"

    def _sample(self) -> np.ndarray:
        """Numbers of the draws to measure: all of them, or a seeded sample spread evenly over the probes."""
        total = len(self.draws)
        if not self.estimate:
            return np.arange(total)
        low, high = _CALIBRATION_LIMITS
        count = min(total, max(low, min(high, total // _CALIBRATION_SHARE)))
        jitter = np.random.default_rng((self.config.diagnosis_seed, count)).random(count)
        return np.floor((np.arange(count) + jitter) * total / count).astype(int)

    def execute(self) -> None:
        check_prompts(self.stack, self.encoded)
        lengths = [len(probe.input_ids) for probe in self.encoded]
        longest = self._ids([int(np.argmax(lengths))])
        with self._timed("verification"):
            clean = self._first_clean_run(longest)
            self._check_output(clean)
            self._make_room(self.stack.num_layers)
            self.batches = plan_batches(self.stack, clean, self.config)
            self.replay_problem = check_replay(self.stack, clean, self.batches.rows)
        if self.replay_problem is not None:
            logger.warning(f"Layer Sensitivity takes whole forward passes: {self.replay_problem}.")
        total = len(self.sample) * self.stack.num_layers
        visible = logging.is_progress_bar_enabled() and is_main_process()
        bar = tqdm(total=total, desc="Diagnosing", unit="value", disable=not visible)
        with bar:
            for length in sorted(set(lengths)):
                members = [index for index, other in enumerate(lengths) if other == length]
                size = self.config.diagnosis_batch_size or self.batches.probes(length)
                for batch in equal_length_batches([length] * len(members), size):
                    self._batch([members[index] for index in batch], self.batches.rows(length), bar)
        self._pass_by_layers_not_run()

    @property
    def not_run(self) -> list[int]:
        """The layers that text alone does not run."""
        return sorted(set(range(self.parts.num_layers)) - set(self.stack.called))

    def _pass_by_layers_not_run(self) -> None:
        """Gives every layer its values: after one that does not run, the hidden state is that of the layer before it."""
        if not self.not_run:
            return
        last = np.searchsorted(self.stack.called, np.arange(self.parts.num_layers), side="right") - 1
        depths = [0, *(last + 1)]
        self.curves, self.top_tokens = self.curves[:, depths], self.top_tokens[:, depths]
        self.measured, self.predicted, self.influence = self.measured[last], self.predicted[last], self.influence[last]
        self.influence[self.not_run] = 0
        if self.config.perturbation == "skip":
            self.measured[self.not_run] = self.predicted[self.not_run] = 0

    def _first_clean_run(self, input_ids: torch.Tensor) -> CleanRun:
        try:
            return self.stack.clean(input_ids)
        except (LayerTracerError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # a model of any make may fail in any way when it is called like a causal LM
            raise UntraceableModelError(
                f"{type(self.parts.model).__name__} could not be run on token ids alone, as a causal language model is "
                f"({type(error).__name__}: {error!s:.160})."
            ) from error

    def _batch(self, members: list[int], rows: int, bar: tqdm) -> None:
        with self._timed("lens"):
            try:
                clean = self.stack.clean(self._ids(members))
            except RuntimeError as error:
                if not should_reduce_batch_size(error) or len(members) == 1:
                    raise
                clean = None
        if clean is None:
            logger.warning_once("Out of memory: the diagnosis goes on with smaller batches of probes.")
            half = len(members) // 2
            self._batch(members[:half], rows, bar)
            self._batch(members[half:], rows, bar)
            return
        with self._timed("lens"):
            self._read_output(clean, members)
            self._read_lens(clean, members, rows)
        self.largest_batch = max(self.largest_batch, len(members))
        row_of = {probe: row for row, probe in enumerate(members)}
        if self.estimate:
            with self._timed("gradients"):
                self._predict(clean, members)
        numbers = [number for number in self.sample.tolist() if self.draws[number].probe in row_of]
        if not numbers:
            return
        with self._timed("sensitivity"):
            draws = [self.draws[number] for number in numbers]
            replay = self.replay_problem is None
            self.largest_rows = max(
                self.largest_rows, min(rows, len(draws) * (len(self.stack.layers) if replay else 1))
            )
            where = [row_of[draw.probe] for draw in draws]
            values = measure_batch(self.stack, clean, self.config, draws, where, rows, replay, bar.update)
        if not np.isfinite(values).all():
            layer = int(np.flatnonzero(~np.isfinite(values).all(1))[0])
            raise LayerTracerError(
                f"Disturbing layer {layer} made the model's output NaN or infinite in {clean.states[-1].dtype}: diagnose "
                "it in a wider data type."
            )
        self.measured[:, numbers] = values

    def _check_output(self, clean: CleanRun) -> None:
        if not torch.isfinite(clean.logits).any() or clean.logits.isnan().any():
            raise LayerTracerError(
                "The model's own output is NaN before anything is disturbed: its weights or their data type are broken."
            )
        check_targets(clean.logits.shape[-1], self.encoded)

    def _read_output(self, clean: CleanRun, members: list[int]) -> None:
        self.log_probability[members], self.correct[members] = target_scores(clean.logits, self._targets(members))
        for layer, (before, after) in enumerate(zip(clean.states, clean.states[1:], strict=False)):
            alike = torch.cosine_similarity(before.to(after.device).float(), after.float(), dim=-1)
            self.influence[layer] += float((1 - alike).flatten(1).mean(1).sum())

    def _read_lens(self, clean: CleanRun, members: list[int], rows: int) -> None:
        if self.lens_problem is not None:
            return
        self.lens_problem = self._lens_at(clean, members, rows)
        if self.lens_problem is not None and not self.whole_prompts:
            # What follows the layers may need more than one position, or the tokens themselves.
            self.whole_prompts = True
            self.lens_problem = self._lens_at(clean, members, rows)

    def _lens_at(self, clean: CleanRun, members: list[int], rows: int) -> str | None:
        """Reads the lens, or says why it is not valid."""
        try:
            reading = read_lens(self.stack, clean, self._targets(members), rows, self.whole_prompts)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # an architecture may fail in any way here, and the rest of the report does not
            return f"reading the hidden states failed ({type(error).__name__}: {error!s:.120})"
        self.lens_error = max(self.lens_error or 0.0, reading.error) if self.curves.any() else reading.error
        tolerance = TOLERANCE.get(clean.states[-1].dtype, TOLERANCE[torch.float32])
        if not reading.error <= tolerance or not np.isfinite(reading.probability).all():
            return (
                f"the reading at the last layer is not the model's own output (it differs by {reading.error:.2g} "
                "of its maximum)"
            )
        self.curves[members], self.top_tokens[members] = reading.probability, reading.top_token
        return None

    def _predict(self, clean: CleanRun, members: list[int]) -> None:
        width = clean.states[-1].shape[-1]
        disturbances = [
            Disturbance(self.config, width, [Draw(probe, repeat, self.repeats) for probe in members])
            for repeat in range(self.repeats)
        ]
        with differentiating(self.stack):
            predicted = predict_batch(self.stack, clean.input_ids, disturbances)
        for repeat in range(self.repeats):
            self.predicted[:, [probe * self.repeats + repeat for probe in members]] = predicted[:, repeat]
        shares = massive_dimensions(clean)
        self.massive = self.massive + shares if len(self.massive) else shares

    def sensitivity(self, tasks: Sequence[str]) -> Sensitivity:
        """The sensitivity part of the report."""
        facts = {
            "estimate": self.estimate,
            "draws": len(self.draws),
            "repeats": self.repeats,
            "path": "replay" if self.replay_problem is None else "full-forward",
            "path_reason": self.replay_problem,
        }
        if not self.estimate:
            values = self.measured.reshape(len(self.measured), len(self.encoded), self.repeats).transpose(0, 2, 1)
            return summarise_sensitivity(values, tasks, self.config.diagnosis_seed, **facts)
        predictors = self.predicted[:, :, None]
        if self.config.perturbation == "mask":
            massive = self.massive.amax(0)
            dimensions = massive.topk(min(MASSIVE_DIMENSIONS, len(massive))).indices
            masks = [
                dimension_mask(len(massive), self.config.mask_ratio, self.config.diagnosis_seed, draw.number)[
                    dimensions
                ]
                for draw in self.draws
            ]
            hits = torch.stack(masks).double().numpy()
            predictors = np.concatenate([predictors, np.broadcast_to(hits, (len(predictors), *hits.shape))], -1)
        adjusted = regression_estimate(predictors, self.measured[:, self.sample], self.sample)
        sampled_tasks = [tasks[self.draws[number].probe] for number in self.sample]
        return summarise_sensitivity(
            adjusted[:, None], sampled_tasks, self.config.diagnosis_seed, calibration_draws=len(self.sample), **facts
        )

    def _ids(self, members: list[int]) -> torch.Tensor:
        return torch.tensor([self.encoded[index].input_ids for index in members], device=self.stack.input_device)

    def _targets(self, members: list[int]) -> torch.Tensor:
        return torch.tensor([self.encoded[index].target_id for index in members])

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.durations[name] = self.durations.get(name, 0.0) + time.perf_counter() - start


def _probe_facts(probes: list[Probe], encoded: list[EncodedProbe], tokenizer) -> ProbeFacts:
    def text(value: str | Sequence[int] | int) -> str | None:
        if isinstance(value, str):
            return value[-_TEXT_LIMIT:]
        if tokenizer is None:
            return None
        return tokenizer.decode(list(value) if isinstance(value, Sequence) else [value])[-_TEXT_LIMIT:]

    tasks = [probe.task for probe in encoded]
    return ProbeFacts(
        count=len(probes),
        sha256=probes_hash(encoded),
        tasks={task: len(members) for task, members in by_task(tasks).items()},
        items=[
            ProbeRecord(
                prompt=text(probe.prompt),
                target=text(probe.target),
                task=probe.task,
                tokens=len(ids.input_ids),
            )
            for probe, ids in zip(probes, encoded, strict=True)
        ],
    )


def _scores(tasks: Sequence[str], run: _Run) -> Scores:
    return Scores(
        accuracy=float(run.correct.mean()),
        mean_log_probability=float(run.log_probability.mean()),
        accuracy_by_task={task: float(run.correct[members].mean()) for task, members in by_task(tasks).items()},
        probability=[float(f"{value:.7g}") for value in np.exp(run.log_probability)],
        correct=run.correct.tolist(),
    )


def _decoded(tokens: np.ndarray, tokenizer) -> list[list[str]] | None:
    if tokenizer is None:
        return None
    text = {int(token): tokenizer.decode([int(token)]) for token in np.unique(tokens)}
    return [[text[int(token)] for token in row] for row in tokens]
