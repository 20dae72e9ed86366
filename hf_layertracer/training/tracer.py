"""One traced training run, whichever way it hangs on the Trainer: the part that callback, mixin and trainer share."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..diagnosis.diagnose import diagnose
from ..distributed import is_distributed, is_main_process, total
from ..errors import LayerTracerError, UntraceableModelError
from ..logs import get_logger
from ..modeling import ModelParts, context_length, find_parts, unwrap
from ..modeling.devices import default_device, reset_peak
from ..modeling.preserve import preserved
from ..modeling.wrappers import whole_parameters
from ..planning import AppliedPlan, apply_plan
from ..planning.config import LayerTracerConfig
from ..planning.fitting import MemoryOfPlans
from ..probes import Probe
from ..records import Diagnosis
from ..report import REPORT_FILE, LayerTracerReport
from .allocation import drop_frozen
from .changes import Changes, options_of
from .measuring import as_in_report, decide, first_report, report_of_checkpoint
from .metrics import metrics_of, plan_line
from .outcome import notes_at_end, outcome_of
from .probing import Collator, NoProbesError, choose_probes, take_rows, tokenizer_of
from .proportion import settle, tokens_to_train
from .publish import save_report


logger = get_logger(__name__)


class Tracer:
    """Diagnoses a model, puts a plan into force on it and keeps the report of what came of it.

    Args:
        config ([`LayerTracerConfig`], *optional*): The settings.
        probes (`Sequence[Probe]`, *optional*): What to diagnose with, before all other sources.
    """

    def __init__(self, config: LayerTracerConfig | None = None, probes: Sequence[Probe] | None = None):
        self.config = LayerTracerConfig.of(config)
        self.report: LayerTracerReport | None = None
        self.applied: AppliedPlan | None = None
        self.changes: Changes | None = None
        self.tokens: int | None = None
        self.seconds_apart = 0.0
        self.expected_peak: int | None = None
        self._given_probes = probes
        self._probes: list[Probe] = []
        self._settings = self.config.diagnosis()
        self._line: str | None = None
        self._tokenizer: Any = None
        self._prepared: nn.Module | None = None
        self._first_step = 0
        self._step_began = 0.0
        self._seconds = 0.0

    def is_prepared_for(self, model: nn.Module) -> bool:
        """Whether the plan is in force on this very model."""
        return self._prepared is not None and unwrap(model) is self._prepared

    @property
    def is_tracing(self) -> bool:
        """Whether there is a report; without layers and with nothing to freeze, there is none."""
        return self.report is not None

    @property
    def can_diagnose_again(self) -> bool:
        """Whether the model was measured, so that later diagnoses have something to compare with."""
        return self.report is not None and self.report.is_measured and bool(self._probes)

    def prepare(
        self,
        model: nn.Module,
        *,
        tokenizer: Any = None,
        dataset: Any = None,
        collator: Collator | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        resume_from: str | Path | None = None,
        precision: Callable[[], AbstractContextManager] = nullcontext,
        output_dir: str | Path = ".",
        memory: MemoryOfPlans | None = None,
        rows_to_train: float | None = None,
    ) -> Any:
        """Diagnoses the model and freezes what the plan freezes; of a resumed run, takes over its report and plan.

        A model that cannot be diagnosed gets the plan of a strategy that needs no measurements; the report says why.

        Args:
            model (`nn.Module`): The model, before it is wrapped for distributed training.
            tokenizer (`Any`, *optional*): What the trainer processes its data with: the model's tokenizer is in it.
            dataset (`Any`, *optional*): Where probes are drawn from.
            collator (`Callable`, *optional*): Turns the dataset's rows into `input_ids` where they hold none.
            optimizer (`torch.optim.Optimizer`, *optional*): One made before; frozen parameters are taken out of it.
            resume_from (`str` or `Path`, *optional*): The checkpoint that the run goes on from.
            precision (`Callable`, *optional*): Makes the context that the model is run in.
            output_dir (`str` or `Path`, *optional*): Where the report will lie, for the message.
            memory ([`MemoryOfPlans`], *optional*): What a limit on memory is compared with.
            rows_to_train (`float`, *optional*): How many rows of its data the whole run reads, where that is known.

        Returns:
            `Any`: The dataset to go on with: the one that was given, unless that was a stream that can be read once only.

        Raises:
            LayerTracerError: The probes, the settings or the checkpoint's report cannot be used, no layers were found, or
                the strategy needs measurements that cannot be made, or such as do not compare with a report that is loaded.
        """
        if self.is_prepared_for(model):
            return dataset
        self.report = None  # a model_init made another model than the one that was measured before
        self._tokenizer = tokenizer_of(tokenizer)
        try:
            parts = find_parts(model, self.config.layers_path)
        except UntraceableModelError as error:
            if self.config.strategy != "full":
                raise LayerTracerError(f"{error} Or train every layer: strategy='full'.") from error
            logger.warning(f"LayerTracer freezes and measures nothing: {error}")
            self._prepared = unwrap(model)
            return dataset
        # Rows and collators may draw random numbers, which training must find untouched.
        with preserved(model):
            drawn = self._given_probes is None and self.config.probes is None
            seed = self.config.diagnosis_seed
            rows, dataset = take_rows(dataset, self.config.num_probes, seed) if drawn else ([], dataset)
            problem = self._choose_probes(rows, collator, context_length(parts.model))
        if resume_from is not None:
            self.report = report_of_checkpoint(Path(resume_from), self.config)
        run = (parts.num_layers, tokens_to_train(rows, rows_to_train), self.report)
        chosen = self._probes
        self._settings, self._probes, self._line = settle(self.config, chosen, *run)
        if self.report is None:
            self.report = first_report(
                self.config, self._settings, parts, self._probes, self._tokenizer, precision, problem
            )
            if self._line is not None and self.report.is_measured:
                self.report.notes.append(self._line)
            try:
                decide(model, self.config, self.report, memory)
            except LayerTracerError:
                self.report = None
                raise
            if resume_from is not None and self.config.strategy != "full":
                self.report = None
                raise LayerTracerError(
                    f"The checkpoint {resume_from} holds no {REPORT_FILE}: it was not saved by a traced run, so which "
                    "layers it trained is not known. Go on with strategy='full', or start a new run from its weights."
                )
        if self.config.report is not None:
            self._keep_to_report(parts, chosen)
        self.applied = apply_plan(model, self.report.plan)
        self._prepared = parts.model
        self.changes = None
        if options_of(self.report.plan) is not None:
            # Optimizer and wrappers have to know all that may ever train; `take_optimizer` freezes.
            self.changes = Changes(self.report, self._measure, memory)
            self.applied.undo()
        elif optimizer is not None:
            drop_frozen(optimizer)
        self._say(output_dir)
        return dataset

    def _keep_to_report(self, parts: ModelParts, probes: list[Probe]) -> None:
        """Later diagnoses ask what the loaded report asked, in its settings; or nothing is measured at all."""
        try:
            self._settings, self._probes = as_in_report(self.config, self.report, parts, probes, self._tokenizer)
        except LayerTracerError:
            self.report = None
            raise

    def _choose_probes(self, rows: list[Any], collator: Collator | None, longest: int | None) -> str | None:
        """Sets the probes, or says why there are none."""
        try:
            self._probes = choose_probes(self.config, self._given_probes, self._tokenizer, rows, collator, longest)
        except NoProbesError as error:
            self._probes = []
            return str(error)
        return None

    def _say(self, output_dir: str | Path) -> None:
        """One line, visible by default wherever a script would otherwise not notice what happens to its model."""
        if is_main_process():
            is_plain = self.report.is_measured and self.applied.frozen_parameters == 0
            line = plan_line(self.report, self.applied, Path(output_dir) / REPORT_FILE)
            (logger.info if is_plain else logger.warning)(line)
            if self._line in self.report.notes:
                logger.warning(self._line)

    def start(self, step: int) -> None:
        """Resets the counts and the memory gauge, and drops the diagnoses of steps that this run makes anew."""
        self._first_step, self._seconds, self.tokens, self.expected_peak = step, 0.0, None, None
        first, later = self.report.diagnoses[:1], self.report.diagnoses[1:]
        self.report.diagnoses = first + [diagnosis for diagnosis in later if diagnosis.step <= step]
        self.seconds_apart = 0.0
        reset_peak(default_device())

    def begin_step(self) -> None:
        """Starts the clock: evaluating, saving and diagnosing are not training."""
        self._step_began = time.perf_counter()

    def end_step(self) -> None:
        """Stops the clock."""
        self._seconds += time.perf_counter() - self._step_began

    def count_tokens(self, inputs: Any) -> None:
        """Adds the tokens of one training batch, padding included."""
        ids = inputs.get("input_ids") if hasattr(inputs, "get") else None
        if isinstance(ids, torch.Tensor):
            self.tokens = (self.tokens or 0) + ids.numel()

    def diagnose_again(self, model: nn.Module, step: int) -> Diagnosis:
        """Repeats the first diagnosis on the model as it is now, and adds the result to the report.

        Args:
            model (`nn.Module`): The model, wrapped or not.
            step (`int`): The optimizer step.

        Returns:
            [`Diagnosis`]: What was measured.
        """
        with whole_parameters(model):
            now = diagnose(model, self._probes, tokenizer=self._tokenizer, config=self._settings)
        diagnosis = now.latest
        diagnosis.step = step
        diagnosis.notes = [note for note in now.notes if note not in self.report.notes]
        self.report.diagnoses.append(diagnosis)
        return diagnosis

    def take_optimizer(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, resume_from: str | Path | None
    ) -> None:
        """Of a strategy that changes what trains: freezes what does not train now, once everything is wrapped.

        Args:
            model (`nn.Module`): The model as the trainer has it.
            optimizer (`torch.optim.Optimizer`): The optimizer, which holds all that may ever train.
            resume_from (`str` or `Path`, *optional*): The checkpoint that the run goes on from.
        """
        if self.changes is not None:
            self.applied = self.changes.take(model, optimizer, Path(resume_from) if resume_from else None)

    def change(self, model: nn.Module, step: int, total_steps: int) -> bool:
        """Asks a strategy that changes what trains again; says whether something changed.

        Args:
            model (`nn.Module`): The model, wrapped or not.
            step (`int`): Optimizer steps made so far.
            total_steps (`int`): Optimizer steps of the run.
        """
        if self.changes is None:
            return False
        if step == self._first_step:
            self.changes.begin(model)
        if not self.changes.is_due(step):
            return False
        applied = self.changes.change(model, step, total_steps)
        self.applied = applied or self.applied
        return applied is not None

    def _measure(self, model: nn.Module, perturbation: str | None, probes: int) -> list[float]:
        """Sensitivity of the layers of the model as it is now, by one perturbation on a few probes of all kinds."""
        first = self.report.first
        name = perturbation or ("skip" if "skip" in first.sensitivities else first.perturbation)
        settings = self._settings if self.config.report is not None else self.config.diagnosis()
        config = replace(settings, perturbation=name)
        # Those of one task tend to stand together.
        count = min(probes, len(self._probes))
        chosen = [self._probes[place * len(self._probes) // count] for place in range(count)]
        return diagnose(model, chosen, tokenizer=self._tokenizer, config=config).sensitivity.mean

    def metrics(self, later: Diagnosis | None = None) -> dict[str, float]:
        """Numbers for the trackers: of a later diagnosis, or of the first one with the plan.

        Args:
            later ([`Diagnosis`], *optional*): The later diagnosis.

        Returns:
            `dict[str, float]`: Names begin with `layertracer/`.
        """
        return metrics_of(self.report, self.applied, later)

    def finish(
        self,
        step: int,
        log_history: list[dict[str, float]],
        device: torch.device,
        *,
        alone: bool = False,
        kept: int | None = None,
    ) -> None:
        """Writes down what came of the run.

        Args:
            step (`int`): The last optimizer step.
            log_history (`list[dict]`): What the trainer logged.
            device (`torch.device`): The training device.
            alone (`bool`, *optional*, defaults to `False`):
                The other processes do not call this, so the tokens that they saw are not known.
            kept (`int`, *optional*):
                At the end, the step of the model that is left; later diagnoses and plans, of a model that was given up, are
                dropped.
        """
        unknown = self.tokens is None or (alone and is_distributed())
        trainable, changes = self.applied.trainable_parameters, 0
        if kept is not None:
            # What trained after the step whose model is left has not made that model.
            first, later = self.report.plans[:1], self.report.plans[1:]
            self.report.plans = first + [record for record in later if record.step < kept]
            changes = len(first) + len(later) - len(self.report.plans)
            if changes:
                trainable = self.report.plan.savings.trainable_parameters
        self.report.training, notes = outcome_of(
            log_history,
            step if kept is None else kept,
            steps=step - self._first_step,
            seconds=self._seconds,
            tokens=None if unknown else total(self.tokens, device),
            device=device,
            expected_memory_bytes=self.expected_peak,
            trainable_parameters=trainable,
        )
        if kept is not None:
            left = [diagnosis for diagnosis in self.report.diagnoses if diagnosis.step <= kept]
            notes += notes_at_end(log_history, step, kept, len(self.report.diagnoses) - len(left), changes)
            self.report.diagnoses = left
        self.report.notes += [note for note in notes if note not in self.report.notes]

    def save(self, directory: str | Path, *, only_json: bool = False) -> None:
        """Saves the report; a disk that is full ends no training."""
        save_report(self.report, directory, only_json=only_json)
