"""What a traced run does at its trainer's events."""

from __future__ import annotations

import shutil
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..errors import LayerTracerError
from ..logs import get_logger
from ..modeling import find_parts
from ..planning.config import LayerTracerConfig
from ..probes import Probe
from ..report import FIGURE_FILE, REPORT_FILE, LayerTracerReport
from .checkpoints import checkpoint_of, kept_step
from .estimating import estimate_line, estimate_of_run, expected_peak
from .metrics import trained_metrics
from .outcome import ends_no_training, without_tracing
from .prefix import FrozenPrefix
from .prefix_cache import CachedPrefix, cached_prefix
from .publish import write_card
from .tracer import Tracer
from .uploads import failed_upload, finish_upload, is_uploading, push_of


logger = get_logger(__name__)


class TracingEvents(TrainerCallback):
    """What a traced run does at the trainer's events, whichever way tracing hangs on the trainer.

    Args:
        config ([`LayerTracerConfig`], *optional*): The settings.
        probes (`Sequence[Probe]`, *optional*): What to diagnose with.
    """

    def __init__(self, config: LayerTracerConfig | None = None, probes: Sequence[Probe] | None = None):
        self.tracer = Tracer(config, probes)
        self._trainer: Callable[[], Trainer | None] = lambda: None
        self._is_training, self._is_estimated = False, True
        self._prefix: FrozenPrefix | None = None
        self._cache: CachedPrefix | None = None
        self._told_of: Any = None
        self._pushed_checkpoint: Path | None = None
        self._trial_dir: Path | None = None

    @property
    def report(self) -> LayerTracerReport | None:
        """The report, once the model has been diagnosed."""
        return self.tracer.report

    def bind(self, trainer: Trainer) -> None:
        """Makes the trainer known: metrics then reach the trackers, and files wait for uploads under way.

        Args:
            trainer ([`~transformers.Trainer`]): The trainer, which has this among its callbacks.
        """
        self._trainer = weakref.ref(trainer)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        if not self.tracer.is_prepared_for(model):
            raise LayerTracerError(
                "No plan is in force on the model that trains: a subclass must call super().get_train_dataloader() or "
                "super().create_optimizer(), where its model is diagnosed and frozen."
            )
        if not self.tracer.is_tracing:
            return
        self.tracer.start(state.global_step)
        self._is_training, self._is_estimated, self._pushed_checkpoint = True, False, None
        if self.tracer.changes is not None:
            self.tracer.changes.wrap(self._trainer().model_wrapped)
            self.tracer.changes.remember(state)
        self._put_prefix_in_place(args, model)
        with self._apart("save its first report"):
            if args.should_save:
                self.tracer.save(args.output_dir, only_json=True)  # the picture is drawn once, at the end
            # Going on, these were logged by the run that was interrupted.
            if state.global_step == 0:
                self._log(self.tracer.metrics(), args, state, control)

    def _put_prefix_in_place(self, args: TrainingArguments, model: Any) -> None:
        self._remove_prefix()  # of a run that an error ended
        parts = find_parts(model, self.report.model.layers_path)
        prefix = FrozenPrefix(model, parts)
        if self.tracer.config.prefix_cache is not None:
            self._cache = cached_prefix(self._trainer(), self.tracer.config, parts, prefix.depth)
        if not args.torch_compile:  # a hook would break the graph, which a compiler keeps small by itself
            self._prefix = prefix
            self._prefix.install()

    def _remove_prefix(self) -> None:
        for held in (self._prefix, self._cache):
            if held is not None:
                held.remove()
        self._prefix = self._cache = None

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        if self.tracer.changes is not None:
            self._change(args, state, control, model)
        self.tracer.begin_step()

    def before_forward(self, inputs: Any) -> None:
        """Counts the tokens of a batch; the first one of a run shows what memory it will take.

        Args:
            inputs (`dict`): The batch.
        """
        trainer = self._trainer()
        if self.tracer.is_tracing and not self._is_estimated and trainer is not None:
            self._is_estimated = True
            with self._apart("estimate the memory of this run"):
                estimate = estimate_of_run(trainer, inputs, self.report.plan)
                if estimate is not None:
                    may_change = self.tracer.changes is not None
                    if not may_change:  # else the measured peak may be that of another plan
                        self.tracer.expected_peak = expected_peak(estimate, trainer.args.device)
                    logger.warning(estimate_line(estimate, may_change=may_change))
            if self._cache is not None:
                self._cache.install()  # only now: an estimate copies the model
        self.tracer.count_tokens(inputs)

    def before_clipping(self, model: Any, scaler: Any) -> None:
        """Lets a strategy see the gradients of a step before the trainer clips them.

        Args:
            model (`nn.Module`): The model.
            scaler (`torch.amp.GradScaler`, *optional*): What the loss was scaled by; clipping undoes that first.
        """
        if self.tracer.changes is not None:
            self.tracer.changes.before_clipping(model, scaler)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        if self.tracer.changes is not None:
            self.tracer.changes.before_update(model, state.global_step, self._trainer().accelerator.scaler)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        if self.tracer.changes is not None:
            skipped = self._trainer().accelerator.optimizer_step_was_skipped
            self.tracer.changes.after_update(model, state.global_step, skipped=skipped)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        self.tracer.end_step()
        if self.tracer.changes is not None:
            self.tracer.changes.remember(state)
        every = self.tracer.config.diagnose_steps
        if every is None or not self.tracer.can_diagnose_again or state.global_step % every:
            return
        with self._apart("diagnose the model again"):
            self._diagnose_again(args, state, control, model, state.global_step)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        checkpoint = checkpoint_of(args, state)
        # The trainer pushes a checkpoint before it says that it has saved one: the report is there, and is being uploaded.
        has_report = checkpoint == self._pushed_checkpoint
        if args.should_save and self.tracer.is_tracing and checkpoint.is_dir() and not has_report:
            with self._apart("save its report"):
                self.tracer.save(checkpoint, only_json=True)
        self._trial_dir = checkpoint.parent if state.is_hyper_param_search and checkpoint.is_dir() else None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if self.tracer.is_tracing and logs and "train_runtime" in logs:
            for line in (logs, state.log_history[-1]):
                without_tracing(line, self.tracer.seconds_apart)

    def on_push_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        if not self.tracer.is_tracing or not args.should_save:
            return
        with self._apart("get its report ready for the Hub"):
            self._get_ready(args, state, model)

    def _get_ready(self, args: TrainingArguments, state: TrainerState, model: Any) -> None:
        self._finish_upload(args)
        if self._is_training:
            self.tracer.finish(state.global_step, state.log_history, args.device, alone=True)
        self.tracer.save(args.output_dir)
        self.write_card(args, model)
        checkpoint = checkpoint_of(args, state)
        if checkpoint.is_dir():
            try:
                for name in (REPORT_FILE, FIGURE_FILE):
                    shutil.copy(Path(args.output_dir) / name, checkpoint)
                self._pushed_checkpoint = checkpoint
            except OSError as error:
                logger.error(f"The LayerTracer report is not in {checkpoint}. {error}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        if not self.tracer.is_tracing:
            return
        self._is_training = False
        if self._cache is not None:
            self.report.notes.append(self._cache.summary)
        if self.tracer.changes is not None:
            self._tell(self.tracer.changes.notes_at_end(), state)
        self._remove_prefix()
        kept = kept_step(args, state)
        with ends_no_training("write down what came of the run"):
            self.tracer.finish(state.global_step, state.log_history, args.device, kept=kept)
            self._finish_upload(args)
        done = self.report.is_repeated and self.report.latest.step == kept
        if self.tracer.config.diagnose_after and self.tracer.can_diagnose_again and not done:
            with ends_no_training("diagnose the model again"):
                self._diagnose_again(args, state, control, model, kept)
        if args.should_save:
            with ends_no_training("save its report"):
                self.tracer.save(args.output_dir)
                if self._trial_dir is not None:  # the next trial of a search overwrites what lies above
                    self.tracer.save(self._trial_dir)

    def _tell(self, notes: list[str], state: TrainerState) -> None:
        for note in notes:
            if state.is_world_process_zero:
                logger.warning(note)
            if note not in self.report.notes:  # a run that goes on has those of its checkpoint
                self.report.notes.append(note)

    @contextmanager
    def _apart(self, what: str) -> Iterator[None]:
        """Work of ours during training: it ends no run, and its time is not the training's."""
        began = time.perf_counter()
        with ends_no_training(what):
            yield
        self.tracer.seconds_apart += time.perf_counter() - began

    def write_card(self, args: TrainingArguments, model: Any) -> None:
        """Writes the report into the card in the output directory; a card that cannot be written ends no training."""
        trainer = self._trainer()
        name = getattr(trainer, "hub_model_id", None) or args.hub_model_id or Path(args.output_dir).name
        try:
            write_card(Path(args.output_dir), self.report, name, model)
        except (LayerTracerError, OSError, UnicodeDecodeError) as error:
            logger.error(f"The LayerTracer report is not in the card. {error}")

    def _finish_upload(self, args: TrainingArguments) -> None:
        """Waits for the upload under way, whose files may not change, and tells if it failed."""
        trainer = self._trainer()
        if trainer is None:
            return
        finish_upload(trainer)
        push, reason = push_of(trainer), failed_upload(trainer)
        if reason is not None and push is not self._told_of:
            self._told_of = push
            logger.error(f"A push during training failed: {reason} The files are in {args.output_dir}.")

    def _diagnose_again(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any, step: int
    ) -> None:
        diagnosis = self.tracer.diagnose_again(model, step)
        self._log(self.tracer.metrics(diagnosis), args, state, control)
        # Files that are being uploaded stay as they are: the next push, or the end of training, brings these.
        trainer = self._trainer()
        if args.should_save and not (trainer is not None and is_uploading(trainer)):
            self.tracer.save(args.output_dir)

    def _change(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any) -> None:
        """Lets the strategy choose again. What goes wrong here ends the run: it would train what the report does not say."""
        began = time.perf_counter()
        if self.tracer.change(model, state.global_step, state.max_steps):
            with ends_no_training("log what trains"):
                self._log(trained_metrics(self.tracer.applied), args, state, control)
            if args.should_save and not is_uploading(self._trainer()):
                self.tracer.save(args.output_dir, only_json=True)
        self.tracer.seconds_apart += time.perf_counter() - began

    def _log(
        self, metrics: dict[str, float], args: TrainingArguments, state: TrainerState, control: TrainerControl
    ) -> None:
        """Shows numbers to the trackers. `log_history` stays the trainer's, for code that indexes it."""
        trainer = self._trainer()
        if trainer is None:
            return
        if state.epoch is not None:
            metrics["epoch"] = state.epoch
        # Logging withdraws the wish to log, and the trainer's own line with the loss is still to come. Its `log` may do
        # more: those of TRL add what they have gathered to the next line, and forget it.
        should_log = control.should_log
        trainer.callback_handler.on_log(args, state, control, metrics)
        control.should_log = should_log
