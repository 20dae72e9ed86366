"""Runs the model over the probes, batch by batch, and shows each clean run to all measurements."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size
from tqdm.auto import tqdm

from ..config import DiagnosisConfig
from ..errors import LayerTracerError, UntraceableModelError
from ..logs import get_logger
from ..probes.encoding import EncodedProbe, equal_length_batches, probes_hash
from ..progress import progress_bar
from .causality import check_causal, check_causal_to_the_end, not_run_on_tokens
from .clean_run import CleanRun
from .layer_stack import LayerStack
from .layout import Layout
from .measurements import Batch, Measurement, Subject
from .memory import BatchPlan, plan_batches
from .position_wise import find_position_wise
from .replay_check import ROWS, check_replay, depends_on_batch
from .score import check_prompts, check_targets
from .sharing import Shares


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = get_logger(__name__)

_STARTS = (3, 2)  # layers from which replay is checked: at the longest prompt, at each other length


class Engine:
    """Runs measurements over all probes of a diagnosis.

    Args:
        stack ([`LayerStack`]): The model's layers.
        probes (`Sequence[EncodedProbe]`): The probes.
        config ([`DiagnosisConfig`]): The settings.
        measurements (`Sequence[Measurement]`): What is measured.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): The model's.
    """

    def __init__(
        self,
        stack: LayerStack,
        probes: Sequence[EncodedProbe],
        config: DiagnosisConfig,
        measurements: Sequence[Measurement],
        tokenizer: PreTrainedTokenizerBase | None = None,
    ):
        self.stack = stack
        self.probes = probes
        self.config = config
        self.measurements = measurements
        self.tokenizer = tokenizer
        self.durations: dict[str, float] = {}
        self.memory: dict[str, int] = {}
        self.called: list[int] = []
        self.one_by_one = False
        self._layouts: dict[int, Layout] = {}
        self._replay_problems: dict[int, str | None] = {}

    def run(self) -> None:
        """Checks the model, then measures.

        Raises:
            UntraceableModelError: The model cannot be run as a causal language model, or its layers cannot be traced.
            LayerTracerError: The probes cannot be used, or memory does not suffice.
        """
        check_prompts(self.stack, self.probes)
        check_causal(self.stack, self.probes)
        lengths = [len(probe.input_ids) for probe in self.probes]
        with progress_bar(f"Diagnosing {self.stack.num_layers} layers", unit="values", total=0) as bar:
            self._count = bar.update
            with self._timed("verification"):
                clean = self._first_clean_run(self._ids([int(np.argmax(lengths))]))
            subject = Subject(self.stack, self.probes, self.config, self.tokenizer, clean, self._count)
            self._shares = Shares(self.stack.model, (probes_hash(self.probes), self.config.to_dict()), clean.logits)
            values = sum(measurement.start(subject) for measurement in self.measurements)
            # A value takes a row through some of the layers, and so does verification.
            others = {length for probe, length in enumerate(lengths) if self._is_replayed(probe)} - {max(lengths)}
            checks = self._checked_rows(_STARTS[0]) + len(others) * self._checked_rows(_STARTS[1])
            bar.total = checks + self._shares.part(values)
            with self._timed("verification"):
                batches = plan_batches(self.stack, clean, self.config)
                check_causal_to_the_end(self.stack, clean, self.probes)
                self.one_by_one = depends_on_batch(self.stack, clean)
                self.stack.position_wise = [] if self.one_by_one else find_position_wise(self.stack, clean)
                self._check_replay(clean, batches)
            self.called = clean.called
            self.memory = {"budget_bytes": batches.budget, "largest_batch_probes": 0}
            pending = list(self.measurements)
            while pending:
                self._observe(self._batches(lengths, batches), batches, clean, pending, bar)
                further = [(measurement, measurement.more()) for measurement in pending]
                pending = [measurement for measurement, work in further if work]
                bar.total += self._shares.part(sum(work for _, work in further))
                bar.update(0)

    def _observe(
        self,
        batches: Iterator[list[int]],
        plan: BatchPlan,
        first: CleanRun,
        measurements: Sequence[Measurement],
        bar: tqdm,
    ) -> None:
        """Shows measurements this process's part of all batches, and then what all processes have observed."""
        before, problem, done = self._shares.before(measurements), None, 0
        try:
            for members in batches:
                if own := self._shares.own(members):
                    self._batch(own, plan, first, measurements)
                done += len(members)
                bar.set_postfix_str(f"{done} of {len(self.probes)} probes", refresh=False)
        except Exception as error:  # the other processes wait for this one, and must hear of it
            problem = error
        self._shares.put_together(measurements, before, problem)

    def _batches(self, lengths: list[int], batches: BatchPlan) -> Iterator[list[int]]:
        """Numbers of the probes of each batch, all of one length."""
        for length in sorted(set(lengths)):
            members = [index for index, other in enumerate(lengths) if other == length]
            size = 1 if self.one_by_one else self.config.diagnosis_batch_size or batches.probes(length)
            for batch in equal_length_batches([length] * len(members), size):
                yield [members[index] for index in batch]

    def _batch(
        self, members: list[int], batches: BatchPlan, first: CleanRun, measurements: Sequence[Measurement]
    ) -> None:
        length = len(self.probes[members[0]].input_ids)
        with self._timed("clean runs"):
            try:
                clean = self.stack.run(self._ids(members), self._layouts.get(length, first.layout))
            except RuntimeError as error:
                if not should_reduce_batch_size(error) or len(members) == 1:
                    raise
                clean = None
        if clean is None:
            logger.warning_once("Out of memory: the diagnosis goes on with smaller batches of probes.")
            half = len(members) // 2
            self._batch(members[:half], batches, first, measurements)
            self._batch(members[half:], batches, first, measurements)
            return
        self._layouts[length] = clean.layout
        if length not in self._replay_problems and any(map(self._is_replayed, members)):
            with self._timed("verification"):
                self._check_replay(clean, batches)
        self.memory["largest_batch_probes"] = max(self.memory["largest_batch_probes"], len(members))
        targets = torch.tensor([self.probes[index].target_id for index in members])
        rows = 1 if self.one_by_one else batches.rows(length)
        batch = Batch(members, targets, clean, rows, self._replay_problems.get(length))
        for measurement in measurements:
            with self._timed(measurement.name):
                measurement.observe(batch)

    def _is_replayed(self, probe: int) -> bool:
        return any(measurement.replays(probe) for measurement in self.measurements)

    def _check_replay(self, clean: CleanRun, batches: BatchPlan) -> None:
        problem: str | None = "the output for a prompt depends on the others in its batch"
        starts = _STARTS[1] if self._replay_problems else _STARTS[0]
        if not self.one_by_one:
            problem = check_replay(self.stack, clean, batches.rows, starts, self.config.diagnosis_seed)
            if problem is not None and self.stack.position_wise:
                self.stack.position_wise = []
                problem = check_replay(self.stack, clean, batches.rows, starts, self.config.diagnosis_seed)
            if problem is not None:
                logger.warning_once(f"Layer Sensitivity takes whole forward passes: {problem}.")
        self._count(self._checked_rows(starts))
        self._replay_problems[clean.input_ids.shape[1]] = problem

    def _checked_rows(self, starts: int) -> int:
        return ROWS * min(starts, self.stack.num_layers)

    def _first_clean_run(self, input_ids: torch.Tensor) -> CleanRun:
        try:
            clean = self.stack.run(input_ids)
        except (LayerTracerError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # a model of any make may fail in any way when it is called like a causal LM
            raise not_run_on_tokens(type(self.stack.model).__name__, error) from error
        if not torch.isfinite(clean.logits).any() or clean.logits.isnan().any():
            raise UntraceableModelError(
                "The model's own output is NaN before anything is perturbed: its weights or their data type are broken."
            )
        check_targets(clean.logits.shape[-1], self.probes)
        return clean

    def _ids(self, members: Sequence[int]) -> torch.Tensor:
        return torch.tensor([self.probes[index].input_ids for index in members], device=self.stack.input_device)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.durations[name] = self.durations.get(name, 0.0) + time.perf_counter() - start
