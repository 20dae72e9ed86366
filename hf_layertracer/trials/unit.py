"""One run of a trial, in its own process: an arm trained with a seed and evaluated, or the model as it was."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..distributed import from_main_process, is_main_process
from ..errors import LayerTracerError
from ..evaluation import evaluate_model
from ..evaluation.result import not_finite
from ..modeling import unwrap
from ..modeling.devices import this_machine
from ..modeling.loading import load_model
from ..modeling.wrappers import without_autocast
from ..training import LayerTracerTrainer
from .arms import ArmConfig, with_adapters
from .config import TrialsConfig
from .data import Blocks
from .folder import TrialFolder, UnitFolder, read_json, write_json
from .prepare import trial_probes
from .process import run_as_child


_COMPLETE = "complete"  # lies in a checkpoint once all of it does
_LOGS = 50  # points of a loss curve
_SAVING = 1 / 20  # of the time, at most, goes into checkpoints
_FIRST_SAVE = 30  # seconds: what is lost before is not worth one


def run_unit(folder: UnitFolder) -> None:
    """Trains and evaluates, or goes on where an earlier process was interrupted.

    Args:
        folder ([`UnitFolder`]): Its folder, with the settings.

    Raises:
        LayerTracerError: Model, data or evaluation cannot be used, or a metric is no finite number.
    """
    settings = read_json(folder.settings)
    config = TrialsConfig(**settings["config"])
    arm = None if settings["arm"] is None else ArmConfig(**settings["arm"])
    model, tokenizer = load_model(config.model, revision=config.revision, dtype=config.dtype)
    trained: dict[str, Any] = {"cost": _cost_of_nothing(), "losses": [], "plan": None, "allocations": 0}
    if arm is not None:
        trained = read_json(folder.trained)
        if trained is None or not (folder.training / trained["checkpoint"]).is_dir():
            data = TrialFolder(folder.path.parent.parent).blocks_of(settings["own"]["files"])
            model, trained = _train(folder, config, arm, settings["seed"], data, model, tokenizer)
        else:
            model = _trained_model(model, arm, folder.training / trained["checkpoint"])
    if not is_main_process():
        return
    _say(folder, **(read_json(folder.progress) or {}) | {"phase": "evaluating"})
    evaluation = evaluate_model(model, tokenizer, config.evaluate)
    # Means and differences with such a number are none, and JSON has no word for it.
    if (metric := not_finite(evaluation.metrics)) is not None:
        raise LayerTracerError(
            f"{metric} of the untouched model is not finite: check its weights, or choose another dtype."
            if arm is None
            else f"diverged: {metric} is not finite; lower its learning rate."
        )
    write_json(
        folder.result,
        {
            "arm": settings["name"],
            "strategy": arm and arm.strategy,
            "options": arm and arm.options,
            "learning_rate": arm and (arm.learning_rate or config.train.learning_rate),
            "seed": settings["seed"],
            "fingerprint": settings["fingerprint"],
            "machine": this_machine(),
            "evaluation": evaluation.to_dict(),
            **trained,
        },
    )
    for checkpoint in folder.training.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        shutil.rmtree(checkpoint, ignore_errors=True)


def _train(
    folder: UnitFolder,
    config: TrialsConfig,
    arm: ArmConfig,
    seed: int,
    data: Path,
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[nn.Module, dict[str, Any]]:
    train, trial = config.train, TrialFolder(folder.path.parent.parent)
    set_seed(seed)
    if arm.is_lora:
        model = with_adapters(model, arm)
    elif arm.takes("plan_seed"):
        arm = arm.with_options(plan_seed=seed)
    trainer = LayerTracerTrainer(
        model=model,
        args=_arguments(folder, config, arm, seed),
        train_dataset=Blocks(data, train.steps * train.batch_size, seed),
        processing_class=tokenizer,
        probes=trial_probes(config, tokenizer),
        layertracer_config=arm.tracing(report=str(trial.diagnosis)),
    )
    # After the tracer's own callback, which writes into checkpoints too.
    trainer.add_callback(_Progress(folder, train.steps))
    if train.save_steps is None:
        trainer.add_callback(_SaveNowAndThen(trainer.args.logging_steps))
    if trainer.args.world_size != config.processes:
        raise LayerTracerError(f"{trainer.args.world_size} processes train together, and not {config.processes}.")
    checkpoint = _last_whole_checkpoint(folder.training)
    trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    trained = {
        "checkpoint": f"{PREFIX_CHECKPOINT_DIR}-{train.steps}",
        "cost": _cost(trainer, train.steps * train.batch_size * train.sequence_length),
        "losses": [[entry["step"], entry["loss"]] for entry in trainer.state.log_history if "loss" in entry],
        "plan": None if arm.is_lora else trainer.layertracer_report.plan.model_dump(mode="json"),
        "allocations": len(trainer.layertracer_report.plans),
    }
    if is_main_process():
        write_json(folder.trained, trained)
    # All models are evaluated in their own type, whatever this one trained in.
    return without_autocast(unwrap(trainer.model)), trained


def _arguments(folder: UnitFolder, config: TrialsConfig, arm: ArmConfig, seed: int) -> TrainingArguments:
    train = config.train
    log_every = max(1, train.steps // _LOGS)
    arguments = TrainingArguments(
        str(folder.training),
        max_steps=train.steps,
        per_device_train_batch_size=train.batch_size // (config.processes * train.gradient_accumulation_steps),
        gradient_accumulation_steps=train.gradient_accumulation_steps,
        learning_rate=arm.learning_rate or train.learning_rate,
        warmup_steps=round(train.warmup_ratio * train.steps),
        # What transformers calls constant has no warm-up.
        lr_scheduler_type="constant_with_warmup" if train.scheduler == "constant" else train.scheduler,
        weight_decay=train.weight_decay,
        bf16=train.bf16,
        save_strategy="steps" if train.save_steps else "no",
        # The Trainer's mean loss starts anew when it resumes: where a logging interval ends, that changes nothing.
        save_steps=-(-train.save_steps // log_every) * log_every if train.save_steps else train.steps,
        save_total_limit=2,
        logging_steps=log_every,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.accelerator.is_available(),
        use_cpu=not torch.accelerator.is_available(),
        seed=seed,
    )
    # One process that sees several GPUs would use all of them (DataParallel) and take as many times the blocks in a step.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def _cost(trainer: LayerTracerTrainer, tokens: int) -> dict[str, Any]:
    report = trainer.layertracer_report
    outcome, steps = report.training, trainer.state.global_step
    # A strategy may change what trains, and with it what a step costs.
    ends = [*(record.step for record in report.plans[1:]), steps]
    periods = [(end - record.step, record.plan.savings) for record, end in zip(report.plans, ends, strict=True)]
    flops = sum(length * savings.flops_per_token for length, savings in periods)
    trainable = outcome.trainable_parameters
    state = [
        value
        for values in trainer.optimizer.state.values()
        for value in values.values()
        if isinstance(value, torch.Tensor)
    ]
    optimizer_bytes = sum(value.numel() * value.element_size() for value in state)
    if len(periods) > 1:
        trainable = sum(length * savings.trainable_parameters for length, savings in periods) // steps
        # What is there at the end is of what trains last; where more did, it was as much larger.
        held = [savings.trainable_parameters for _, savings in periods]
        optimizer_bytes = optimizer_bytes * max(held) // held[-1]
    return {
        "tokens": tokens,
        "tokens_per_second": outcome.tokens_per_second,
        "peak_memory_bytes": outcome.peak_memory_bytes,
        "peak_memory_of": outcome.peak_memory_of,
        "trainable_parameters": trainable,
        "optimizer_bytes": optimizer_bytes,
        "flops": flops * tokens // steps,
    }


def _cost_of_nothing() -> dict[str, Any]:
    return {
        "tokens": 0,
        "tokens_per_second": None,
        "peak_memory_bytes": None,
        "peak_memory_of": None,
        "trainable_parameters": 0,
        "optimizer_bytes": 0,
        "flops": 0,
    }


def _trained_model(model: nn.Module, arm: ArmConfig, checkpoint: Path) -> nn.Module:
    """The model of a run that was interrupted after its training."""
    if arm.is_lora:
        from peft import PeftModel

        return unwrap(PeftModel.from_pretrained(model, checkpoint))
    parameter = next(model.parameters())
    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=parameter.dtype).eval().to(parameter.device)


def _last_whole_checkpoint(training: Path) -> Path | None:
    """The newest checkpoint of which all was written; what is left of others is removed."""
    steps = {}
    for checkpoint in training.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        if (checkpoint / _COMPLETE).is_file():
            steps[int(checkpoint.name.rpartition("-")[2])] = checkpoint
        elif is_main_process():
            shutil.rmtree(checkpoint, ignore_errors=True)
    return steps[max(steps)] if steps else None


class _Progress(TrainerCallback):
    """Says how far a run is, and marks checkpoints that are whole."""

    def __init__(self, folder: UnitFolder, steps: int):
        self._folder, self._steps, self._said = folder, steps, 0.0
        self._began, self._first = 0.0, 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._began, self._first = time.monotonic(), state.global_step

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if args.should_save and time.monotonic() - self._said > 1:
            self._said = time.monotonic()
            pace = (self._said - self._began) / (state.global_step - self._first)
            _say(self._folder, phase="training", step=state.global_step, seconds_a_step=round(pace, 4))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        checkpoint = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        # There is nothing to resume from the last one: a run without trained.json makes its last steps again.
        if args.should_save and state.global_step < self._steps:
            (checkpoint / _COMPLETE).touch()


class _SaveNowAndThen(TrainerCallback):
    """Writes a checkpoint as often as that costs a small part of the time, however large the model and slow the disk."""

    def __init__(self, every: int):
        self._every, self._due, self._asked = every, 0.0, 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._due = time.monotonic() + _FIRST_SAVE

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # Losses are whole only where they are logged. Clocks differ, and a checkpoint is the work of all processes.
        if state.global_step % self._every == 0 and from_main_process(time.monotonic() >= self._due):
            control.should_save, self._asked = True, time.monotonic()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        now = time.monotonic()
        self._due = now + max(_FIRST_SAVE, (now - self._asked) / _SAVING)


def _say(folder: UnitFolder, **progress: Any) -> None:
    write_json(folder.progress, progress)


if __name__ == "__main__":
    unit = UnitFolder(Path(sys.argv[1]))
    run_as_child(lambda: run_unit(unit), unit.failure)
