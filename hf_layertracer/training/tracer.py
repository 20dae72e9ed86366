"""One traced training run, whichever way it hangs on the Trainer: the part that callback, mixin and trainer share."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.trainer_utils import get_last_checkpoint

from ..diagnosis.diagnose import diagnose
from ..distributed import from_main_process, is_distributed, total
from ..errors import LayerTracerError, UntraceableModelError
from ..hub.privacy import public_report
from ..logs import get_logger
from ..modeling import find_parts, unwrap
from ..modeling.devices import default_device, peak_bytes, reset_peak
from ..modeling.preserve import preserved
from ..planning import AppliedPlan, apply_plan, configured_plan, read_plan
from ..planning.config import LayerTracerConfig
from ..probes import Probe, builtin_probes, load_probes
from ..records import Diagnosis, TrainingOutcome
from ..report import REPORT_FILE, LayerTracerReport


logger = get_logger(__name__)


class Tracer:
    """Diagnoses a model, puts a plan into force on it and keeps the report of what came of it.

    Args:
        config ([`LayerTracerConfig`], *optional*): The settings.
        probes (`Sequence[Probe]`, *optional*): What to diagnose with, before all other sources.
    """

    def __init__(self, config: LayerTracerConfig | None = None, probes: Sequence[Probe] | None = None):
        self.config = config or LayerTracerConfig()
        self.report: LayerTracerReport | None = None
        self.applied: AppliedPlan | None = None
        self.untraceable = False
        self.tokens: int | None = None
        self._given_probes = probes
        self._probes: list[Probe] = []
        self._tokenizer: Any = None
        self._prepared: nn.Module | None = None
        self._first_step = 0
        self._step_began = 0.0
        self._seconds = 0.0

    # -- before training -------------------------------------------------------------------------------------------

    def is_prepared_for(self, model: nn.Module) -> bool:
        """Whether the plan is in force on this very model (a `model_init` makes a new one for each run)."""
        return self._prepared is not None and unwrap(model) is self._prepared

    def prepare(
        self,
        model: nn.Module,
        *,
        tokenizer: Any = None,
        dataset: Any = None,
        collator: Callable[[list[Any]], Any] | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        resume_from: str | Path | None = None,
        precision: Callable[[], AbstractContextManager] = nullcontext,
    ) -> None:
        """Diagnoses the model and freezes what the plan freezes; of a resumed run, takes over its report and plan.

        Args:
            model (`nn.Module`): The model, before it is wrapped for distributed training.
            tokenizer (`PreTrainedTokenizerBase`, *optional*): The model's tokenizer.
            dataset (`Any`, *optional*): Where probes are drawn from.
            collator (`Callable`, *optional*): Turns the dataset's rows into `input_ids` where they hold none.
            optimizer (`torch.optim.Optimizer`, *optional*): One made before; frozen parameters are taken out of it.
            resume_from (`str` or `Path`, *optional*): The checkpoint that the run goes on from.
            precision (`Callable`, *optional*): Makes the context that the model is run in.

        Raises:
            LayerTracerError: The probes, the settings or the checkpoint's report cannot be used.
        """
        if self.is_prepared_for(model):
            return
        # A model_init made another model than the one that was measured before.
        self.report, self.untraceable = None, False
        self._tokenizer = tokenizer
        try:
            find_parts(model, self.config.layers_path)
            # Rows and collators may draw random numbers, which training must find untouched.
            with preserved(model):
                self._probes = self._choose_probes(dataset, collator)
            if resume_from is not None:
                self._take_over(Path(resume_from))
            if self.report is None:
                self._measure_and_plan(model, precision)
                if resume_from is not None and self.config.strategy != "full":
                    raise LayerTracerError(
                        f"The checkpoint {resume_from} holds no {REPORT_FILE}: it was not saved by a traced run, so which "
                        "layers it trained is not known. Go on with strategy='full', or start a new run from its weights."
                    )
            self.applied = apply_plan(model, self.report.plan)
        except UntraceableModelError as error:
            if self.config.layers_path is not None:
                raise
            logger.warning(f"Training goes on without LayerTracer, with every layer: {error}")
            self._prepared, self.untraceable = unwrap(model), True
            return
        self._prepared = unwrap(model)
        if optimizer is not None:
            _drop_frozen(optimizer)
        plan = self.report.plan
        share = self.applied.trainable_parameters / plan.savings.total_parameters
        logger.info(
            f"LayerTracer ({plan.strategy}): {len(plan.trained_layers)} of {plan.num_layers} layers train, "
            f"{self.applied.trainable_parameters} parameters ({share:.0%}). {plan.reason}"
        )

    def _measure_and_plan(self, model: nn.Module, precision: Callable[[], AbstractContextManager]) -> None:
        if self.config.report is not None:
            report = LayerTracerReport.load(self.config.report)
            # What was measured and decided while an earlier run trained is no part of this one.
            report.diagnoses, report.plans = report.diagnoses[:1], []
        else:
            with precision():
                report = diagnose(model, self._probes, tokenizer=self._tokenizer, config=self.config.diagnosis())
            # Processes may round differently, and a plan that differs between them would hang the run.
            report = from_main_process(report)
        report.set_plan(configured_plan(model, self.config, report=report, layers_path=report.model.layers_path))
        self.report = report

    def _take_over(self, checkpoint: Path) -> None:
        """Goes on with the report of the checkpoint, or of the run it belongs to, if there is one."""
        places = [place for place in (checkpoint, checkpoint.parent) if (place / REPORT_FILE).is_file()]
        if not places:
            return
        report = LayerTracerReport.load(places[0])
        if report.plan is None:
            raise LayerTracerError(f"The report in {places[0]} holds no plan to go on with.")
        wanted = (self.config.strategy, self.config.plan_options())
        if self.config.plan is not None:
            planned = read_plan(self.config.plan)
            wanted = (planned.strategy, planned.options)
        if (report.plan.strategy, report.plan.options) != wanted:
            logger.warning(
                f"The checkpoint's plan stays in force ({report.plan.strategy}, {report.plan.options or 'no options'}); "
                f"the settings of this run are ignored ({wanted[0]}, {wanted[1] or 'no options'})."
            )
        self.report = report

    def _choose_probes(self, dataset: Any, collator: Callable[[list[Any]], Any] | None) -> list[Probe]:
        config = self.config
        if self._given_probes is not None:
            return list(self._given_probes)
        if config.probes is not None:
            return load_probes(
                config.probes, tokenizer=self._tokenizer, max_probes=config.num_probes, seed=config.diagnosis_seed
            )
        if dataset is not None:
            try:
                return probes_from_dataset(
                    dataset, collator, self._tokenizer, config.num_probes, config.diagnosis_seed
                )
            except LayerTracerError as error:
                reason = f"No probes could be drawn from the dataset ({error})"
        else:
            reason = "There is no dataset to draw probes from"
        if self._tokenizer is None:
            raise LayerTracerError(
                f"{reason}, and the probes of the package are text, which needs a tokenizer. Pass probes=..., or "
                "processing_class=tokenizer."
            )
        logger.info(f"{reason}: the probes of the package are used.")
        return builtin_probes()

    # -- during training -------------------------------------------------------------------------------------------

    def start(self, step: int) -> None:
        """Resets the counts and the memory gauge, and drops the diagnoses of steps that this run makes anew."""
        self._first_step, self._seconds, self.tokens = step, 0.0, None
        first, *later = self.report.diagnoses
        self.report.diagnoses = [first, *(diagnosis for diagnosis in later if diagnosis.step <= step)]
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
        now = diagnose(model, self._probes, tokenizer=self._tokenizer, config=self.config.diagnosis())
        diagnosis = now.latest
        diagnosis.step = step
        diagnosis.notes = [note for note in now.notes if note not in self.report.notes]
        self.report.diagnoses.append(diagnosis)
        return diagnosis

    def metrics(self, later: Diagnosis | None = None) -> dict[str, float]:
        """Numbers for the trackers: of a later diagnosis, or of the first one with the plan.

        Args:
            later ([`Diagnosis`], *optional*): The later diagnosis.

        Returns:
            `dict[str, float]`: Names begin with `layertracer/`.
        """
        plan, diagnosis = self.report.plan, later or self.report.first
        figures = diagnosis.headline()
        values = {
            "probe_accuracy": figures["accuracy"],
            "probe_log_probability": figures["mean_log_probability"],
            "vulnerable_layer": figures["vulnerable_layer"],
            "sensitivity": figures["mean_sensitivity"],
        }
        if figures["task_particle"] is not None:
            values["task_particle"] = figures["task_particle"]
        for name, layers in (("trained", plan.trained_layers), ("frozen", plan.frozen_layers)):
            if layers:
                values[f"sensitivity_{name}"] = diagnosis.sensitivity.mean_over(layers)
        if later is None:
            values |= {
                "trained_layers": len(plan.trained_layers),
                "trainable_parameters": self.applied.trainable_parameters,
            }
        return {f"layertracer/{name}": value for name, value in values.items()}

    # -- after training --------------------------------------------------------------------------------------------

    def finish(
        self, step: int, log_history: list[dict[str, float]], device: torch.device, *, alone: bool = False
    ) -> None:
        """Writes down what came of the run.

        Args:
            step (`int`): The last optimizer step.
            log_history (`list[dict]`): What the trainer logged.
            device (`torch.device`): The training device.
            alone (`bool`, *optional*, defaults to `False`):
                The other processes do not call this, so the tokens that they saw are not known.
        """
        unknown = self.tokens is None or (alone and is_distributed())
        tokens = None if unknown else total(self.tokens, device)
        peak, owner = peak_bytes(device)
        evaluations = _evaluation_losses(log_history)
        losses = [entry["train_loss"] for entry in log_history if "train_loss" in entry]
        self.report.training = TrainingOutcome(
            steps=step - self._first_step,
            seconds=round(self._seconds, 3),
            tokens=tokens,
            tokens_per_second=tokens and round(tokens / self._seconds, 2),
            peak_memory_bytes=peak,
            peak_memory_of=owner,
            trainable_parameters=self.applied.trainable_parameters,
            train_loss=losses[-1] if losses else None,
            eval_loss_before=evaluations[0] if len(evaluations) > 1 else None,
            eval_loss_after=evaluations[-1] if evaluations else None,
        )

    def save(self, directory: str | Path, *, only_json: bool = False) -> None:
        """Saves the report; a disk that is full ends no training."""
        report = public_report(self.report)
        try:
            if only_json:
                report.save_json(directory)
            else:
                report.save(directory)
        except (LayerTracerError, OSError) as error:  # the picture's library has files of its own to write
            logger.error(f"The LayerTracer report was not saved. {error}")


def probes_from_dataset(
    dataset: Any, collator: Callable[[list[Any]], Any] | None, tokenizer: Any, count: int, seed: int
) -> list[Probe]:
    """Draws probes from a dataset as a trainer gets it: text, token ids or whatever the collator understands.

    Args:
        dataset (`Any`): A dataset with a length, a stream, or a dictionary of datasets, whose first is used.
        collator (`Callable`, *optional*): The data collator.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): Needed for text.
        count (`int`): How many rows to draw from.
        seed (`int`): Seed of the draw.

    Returns:
        `list[Probe]`: The probes.

    Raises:
        LayerTracerError: The rows hold neither text nor token ids, also after the collator.
    """
    if isinstance(dataset, dict):
        dataset = next(iter(dataset.values()))
    if hasattr(dataset, "__len__") and not isinstance(dataset, torch.utils.data.IterableDataset):
        size = len(dataset)
        chosen = sorted(np.random.default_rng(seed).choice(size, min(count, size), replace=False).tolist())
        rows = [dataset[index] for index in chosen]
    else:
        rows = list(islice(iter(dataset), count))
    try:
        return load_probes(rows, tokenizer=tokenizer, seed=seed)
    except LayerTracerError:
        if collator is None:
            raise
    try:
        batches = [collator([row]) for row in rows]
        collated = [{name: values[0] for name, values in batch.items()} for batch in batches]
    except Exception as error:  # a collator is the user's code: whatever it raises, other probes will do
        raise LayerTracerError(f"the data collator failed on a single row: {error!s:.120}") from error
    return load_probes(collated, seed=seed)


def last_checkpoint(resume_from_checkpoint: str | bool | None, output_dir: str) -> str | None:
    """The checkpoint that `Trainer.train(resume_from_checkpoint=...)` means."""
    if resume_from_checkpoint is True:
        return get_last_checkpoint(output_dir)
    return resume_from_checkpoint or None


def _evaluation_losses(log_history: list[dict[str, float]]) -> list[float]:
    """The evaluation losses in the order of logging; of several evaluation sets, those of the first."""
    names = [name for entry in log_history for name in entry if name.startswith("eval_") and name.endswith("loss")]
    return [entry[names[0]] for entry in log_history if names[0] in entry] if names else []


def _drop_frozen(optimizer: torch.optim.Optimizer) -> None:
    """Takes frozen parameters and their state out of an optimizer that was made before the plan."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if not parameter.requires_grad:
                optimizer.state.pop(parameter, None)
        group["params"] = [parameter for parameter in group["params"] if parameter.requires_grad]
