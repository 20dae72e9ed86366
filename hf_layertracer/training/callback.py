"""The tracer as a callback, for a trainer whose class cannot be swapped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from ..config import LayerTracerConfig
from ..errors import LayerTracerError
from ..probes import Probe
from ..report import REPORT_FILE, LayerTracerReport
from .tracer import Tracer, last_checkpoint


logger = logging.get_logger(__name__)


class LayerTracerCallback(TrainerCallback):
    """Traces a training run: `Trainer(..., callbacks=[LayerTracerCallback()])`.

    The model is diagnosed and frozen while the trainer is constructed, before there is an optimizer. A callback does
    not see the datasets, so the probes are those that it is given or those of the package, and it cannot call
    `Trainer.log`: its metrics stand in `trainer.state.log_history`, but trackers do not show them.
    [`LayerTracerTrainer`] has neither limit.

    Args:
        config ([`LayerTracerConfig`], *optional*): The settings.
        probes (`Sequence[Probe]`, *optional*): What to diagnose with.
    """

    def __init__(self, config: LayerTracerConfig | None = None, probes: Sequence[Probe] | None = None):
        self.tracer = Tracer(config, probes)
        # The mixin puts Trainer.log here.
        self.log: Callable[[dict[str, float]], None] | None = None

    @property
    def report(self) -> LayerTracerReport | None:
        """The report, once the model has been diagnosed."""
        return self.tracer.report

    def on_init_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        processing_class: Any = None,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        self.tracer.prepare(
            model,
            tokenizer=processing_class,
            optimizer=optimizer,
            resume_from=last_checkpoint(args.resume_from_checkpoint, args.output_dir),
        )

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        if not self.tracer.is_prepared_for(model):
            raise LayerTracerError(
                "LayerTracerCallback came too late to freeze anything: the optimizer exists and the model is wrapped. "
                "Pass it to the constructor, Trainer(..., callbacks=[LayerTracerCallback()]), and not with model_init, "
                "which makes a new model afterwards; or use LayerTracerTrainer."
            )
        if self.tracer.untraceable:
            return
        checkpoint = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        if state.global_step > 0 and (checkpoint / REPORT_FILE).is_file():
            self._compare_with(checkpoint)
        self.tracer.start(state.global_step)
        if state.is_world_process_zero:
            self.tracer.save(args.output_dir)
        self._log(self.tracer.metrics(), state)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.tracer.begin_step()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        self.tracer.end_step()
        every = self.tracer.config.diagnose_steps
        if every is None or self.tracer.untraceable or state.global_step % every:
            return
        self._diagnose_again(args, state, model)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        checkpoint = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        if state.is_world_process_zero and not self.tracer.untraceable and checkpoint.is_dir():
            self.tracer.save(checkpoint, only_json=True)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        if self.tracer.untraceable:
            return
        self.tracer.finish(state.global_step, state.log_history, args.device)
        history = self.tracer.report.history
        if self.tracer.config.diagnose_after and not (history and history[-1].step == state.global_step):
            self._diagnose_again(args, state, model)
        elif state.is_world_process_zero:
            self.tracer.save(args.output_dir)

    def _diagnose_again(self, args: TrainingArguments, state: TrainerState, model: Any) -> None:
        snapshot = self.tracer.diagnose_again(model, state.global_step)
        self._log(self.tracer.metrics(snapshot), state)
        if state.is_world_process_zero:
            self.tracer.save(args.output_dir)

    def _log(self, metrics: dict[str, float], state: TrainerState) -> None:
        if self.log is not None:
            self.log(metrics)
        else:
            state.log_history.append({**metrics, "step": state.global_step})

    def _compare_with(self, checkpoint: Path) -> None:
        """The callback alone learns too late that a run is resumed: the plan that it made has to be the same."""
        report = LayerTracerReport.load(checkpoint)
        ours, theirs = self.tracer.report.plan, report.plan
        if theirs is not None and theirs.trained_layers != ours.trained_layers:
            raise LayerTracerError(
                f"The checkpoint {checkpoint} trains layers {theirs.trained_layers}, but the plan in force trains "
                f"{ours.trained_layers}. Set TrainingArguments(resume_from_checkpoint=...), which a callback can see, or "
                "use LayerTracerTrainer."
            )
        self.tracer.report = report
