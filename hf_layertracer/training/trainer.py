"""The tracer inside a trainer class."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from ..errors import LayerTracerError
from ..hub.transport import hub_errors
from ..logs import get_logger
from ..modeling.preserve import preserved
from ..planning.config import LayerTracerConfig
from ..probes import Probe
from ..report import LayerTracerReport
from .allocation import drop_frozen
from .checkpoints import last_checkpoint, newest_complete_checkpoint
from .estimating import memory_of_run
from .events import TracingEvents
from .probing import has_rows, sample_rows
from .proportion import rows_to_train


logger = get_logger(__name__)

_NO_FSDP = (
    "fsdp shards nothing in this run: without an accelerator, accelerate falls back to DDP, and each process holds the "
    "whole model. To shard on CPUs, load it with from_pretrained(..., distributed_config=DistributedConfig(fsdp_size=...))."
)


class LayerTracerMixin:
    """Adds layer tracing to any trainer class: `class MySFTTrainer(LayerTracerMixin, SFTTrainer): ...`.

    Before the optimizer is created and the model is wrapped, the model is diagnosed and the plan put into force. What
    training script, model, collator, launcher and checkpoints are stays as it is.

    Args:
        layertracer_config ([`LayerTracerConfig`], *optional*): The settings.
        probes (`Sequence[Probe]`, *optional*):
            What to diagnose with; drawn from the evaluation or else the training dataset by default.
        args, kwargs: What the trainer class takes.

    Example:

    ```python
    from trl import SFTTrainer

    from hf_layertracer import LayerTracerMixin


    class MySFTTrainer(LayerTracerMixin, SFTTrainer):
        pass
    ```
    """

    def __init__(
        self,
        *args: Any,
        layertracer_config: LayerTracerConfig | None = None,
        probes: Sequence[Probe] | None = None,
        **kwargs: Any,
    ):
        self._trace_with(TracingEvents(layertracer_config, probes))
        super().__init__(*args, **kwargs)
        check_sole(self, self._layertracer)
        self._put_among_callbacks()

    def _trace_with(self, events: TracingEvents) -> None:
        self._layertracer = events
        self._resume_from: str | bool | None = None
        events.bind(self)

    def _put_among_callbacks(self) -> None:
        if self._layertracer not in self.callback_handler.callbacks:
            # Behind transformers' own first one: other code counts callbacks from the end, where the trainer's own are.
            self.callback_handler.callbacks.insert(1, self._layertracer)

    @property
    def layertracer_report(self) -> LayerTracerReport | None:
        """The report, once training has begun; it is complete when training has ended."""
        return self._layertracer.report

    def train(self, *args: Any, **kwargs: Any) -> Any:
        check_sole(self, self._layertracer)  # callbacks may have been added
        resume_from = argument_of(super().train, "resume_from_checkpoint", args, kwargs)
        newest = newest_complete_checkpoint(self.args.output_dir) if resume_from is True else None
        if newest is not None:
            # The newest that the trainer would find may be one that a kill cut short.
            args, kwargs = (), {**bound_arguments(super().train, args, kwargs), "resume_from_checkpoint": newest}
        self._resume_from = newest or resume_from
        return super().train(*args, **kwargs)

    def get_train_dataloader(self) -> Any:
        # The first thing that training asks for. Here the model is the one that will be trained, with the checkpoint's
        # weights; there is no optimizer yet, and nothing is wrapped.
        if self.is_in_train:
            if self.train_dataset is not None and not has_rows(self.train_dataset):
                raise LayerTracerError("The training dataset is empty: there is nothing to train on.")
            self._trace(last_checkpoint(self._resume_from, self.args.output_dir))
            if self.args.fsdp and not self.is_fsdp_enabled and self.is_world_process_zero():
                logger.warning(_NO_FSDP)
        return super().get_train_dataloader()

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        self._trace(None)
        if self._layertracer.tracer.changes is not None:
            check_launcher(self)
        optimizer = super().create_optimizer(*args, **kwargs)
        if isinstance(self.optimizer, torch.optim.Optimizer) and self._layertracer.tracer.changes is None:
            drop_frozen(self.optimizer)  # some, as GaLore's, hold every parameter that they are meant for
        return optimizer

    def create_scheduler(self, *args: Any, **kwargs: Any) -> Any:
        # The model is wrapped, and the optimizer's state is not loaded yet: its groups have to be those of the checkpoint.
        if self.is_in_train and self._layertracer.tracer.changes is not None:
            optimizer = getattr(self.optimizer, "optimizer", self.optimizer)  # out of accelerate's
            resume_from = last_checkpoint(self._resume_from, self.args.output_dir)
            self._layertracer.tracer.take_optimizer(self.model, optimizer, resume_from)
        return super().create_scheduler(*args, **kwargs)

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        self._layertracer.before_forward(inputs)
        return super().training_step(model, inputs, *args, **kwargs)

    def _clip_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        self._layertracer.before_clipping(self.model, self.accelerator.scaler)
        return super()._clip_grad_norm(*args, **kwargs)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        super().create_model_card(*args, **kwargs)
        if self._layertracer.report is not None and self.is_world_process_zero():
            self._layertracer.write_card(self.args, self.model)

    def init_hf_repo(self, token: str | None = None, *args: Any, **kwargs: Any) -> None:
        with hub_errors(self._repo_name(), token or self.args.hub_token):
            super().init_hf_repo(token, *args, **kwargs)

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:
        with hub_errors(self._repo_name(), kwargs.get("token") or self.args.hub_token):
            return super().push_to_hub(*args, **kwargs)

    def _repo_name(self) -> str:
        return self.hub_model_id or self.args.hub_model_id or Path(self.args.output_dir).name

    def _trace(self, resume_from: str | None) -> None:
        tracer = self._layertracer.tracer
        if tracer.is_prepared_for(self.model):
            return
        source = "eval_dataset" if has_rows(self.eval_dataset) else "train_dataset"
        given = getattr(self, source)
        memory = None
        if tracer.config.max_memory is not None and resume_from is None:
            with preserved(self.model):
                memory = memory_of_run(self, sample_rows(self.train_dataset))
        dataset = tracer.prepare(
            self.model,
            tokenizer=self.processing_class,
            dataset=given,
            collator=self.data_collator,
            optimizer=self.optimizer,
            resume_from=resume_from,
            precision=self.accelerator.autocast,
            output_dir=self.args.output_dir,
            memory=memory,
            rows_to_train=rows_to_train(self.args, self.train_dataset),
        )
        if dataset is not given:
            setattr(self, source, dataset)


def check_sole(trainer: Trainer, events: TracingEvents) -> None:
    """Refuses a second plan for the same model.

    Args:
        trainer ([`~transformers.Trainer`]): The trainer.
        events ([`TracingEvents`]): What traces it.

    Raises:
        LayerTracerError: Another one is among its callbacks.
    """
    if any(isinstance(one, TracingEvents) and one is not events for one in trainer.callback_handler.callbacks):
        raise LayerTracerError(
            f"This {type(trainer).__name__} traces already: leave the other LayerTracerCallback out."
        )


def check_launcher(trainer: Trainer) -> None:
    """Refuses launchers under which what trains cannot change.

    Args:
        trainer ([`~transformers.Trainer`]): The trainer, once it knows how it runs.

    Raises:
        LayerTracerError: It runs under DeepSpeed or FSDP1, or keeps states where shards have no place to keep them.
    """
    plan = trainer._layertracer.report.plan
    plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    if trainer.is_deepspeed_enabled or (trainer.is_fsdp_enabled and plugin is not None and plugin.fsdp_version == 1):
        what = "DeepSpeed" if trainer.is_deepspeed_enabled else "FSDP1"
        raise LayerTracerError(
            f"The strategy {plan.strategy!r} changes what trains, and {what} decides that once, when it flattens the "
            "parameters. Use DDP or FSDP2, or a strategy that does not change."
        )
    if trainer.is_fsdp_enabled and plan.options.get("keep_optimizer_state"):
        raise LayerTracerError(
            "keep_optimizer_state is not for FSDP, whose checkpoints hold no state of what is frozen."
        )


def bound_arguments(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name.

    Args:
        function (`Callable`): The function that is called.
        args (`tuple`), kwargs (`dict`): What it is called with.

    Returns:
        `dict[str, Any]`: Those that the call gives, ready to be given by name.
    """
    arguments = inspect.signature(function).bind(*args, **kwargs).arguments
    kinds = {name: parameter.kind for name, parameter in inspect.signature(function).parameters.items()}
    named = {name: value for name, value in arguments.items() if kinds[name] is not inspect.Parameter.VAR_KEYWORD}
    for name, value in arguments.items():
        if kinds[name] is inspect.Parameter.VAR_KEYWORD:
            named |= value
    return named


def argument_of(function: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a call gives for one argument, by position or by name.

    Args:
        function (`Callable`): The function that is called.
        name (`str`): Name of the argument.
        args (`tuple`), kwargs (`dict`): What it is called with.

    Returns:
        `Any`: The value, or `None` where the call gives none.
    """
    return bound_arguments(function, args, kwargs).get(name)


class LayerTracerTrainer(LayerTracerMixin, Trainer):
    """[`~transformers.Trainer`] that diagnoses the model, trains the layers worth training and reports what came of it.

    Without further arguments: the probes are drawn from the evaluation or training dataset, the shallow half of the
    layers trains, the deep half is frozen, and the report lies in `args.output_dir`.

    Example:

    ```python
    from hf_layertracer import LayerTracerTrainer

    trainer = LayerTracerTrainer(model=model, args=args, train_dataset=dataset, processing_class=tokenizer)
    trainer.train()
    print(trainer.layertracer_report.plan.reason)
    ```
    """
