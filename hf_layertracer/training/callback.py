"""Tracing as a callback, for a trainer whose class cannot be swapped."""

from __future__ import annotations

import time
from typing import Any

from torch import nn
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

from ..errors import LayerTracerError
from .alone import begin_alone
from .events import TracingEvents
from .trainer import LayerTracerMixin, check_sole


class LayerTracerCallback(TracingEvents):
    """Traces a training run: `Trainer(..., callbacks=[LayerTracerCallback()])`.

    In a training on one process, the trainer's events are enough: when training begins, the model is diagnosed and the plan
    put into force, and the report is saved as a [`LayerTracerTrainer`] saves it. What needs the trainer itself (several
    processes, FSDP, strategies that change what trains, `max_memory`, `prefix_cache`) is refused in one line, and works
    after `callback.attach(trainer)`.

    Args:
        config ([`LayerTracerConfig`], *optional*): The settings.
        probes (`Sequence[Probe]`, *optional*):
            What to diagnose with; drawn from the evaluation or else the training dataset by default.

    Example:

    ```python
    from transformers import Trainer

    from hf_layertracer import LayerTracerCallback

    callback = LayerTracerCallback()
    trainer = Trainer(model=model, args=args, train_dataset=dataset, processing_class=tokenizer, callbacks=[callback])
    trainer.train()
    print(callback.report.plan.reason)
    ```
    """

    def attach(self, trainer: Trainer) -> None:
        """Makes a trainer do all that a [`LayerTracerTrainer`] does, between its constructor and `train()`.

        The trainer's class gets [`LayerTracerMixin`] and keeps its name, which shows in logs and cards. The callback need
        not be among the trainer's own.

        Args:
            trainer ([`~transformers.Trainer`]): The trainer.

        Raises:
            LayerTracerError: It is no trainer, traces already, or has begun to train; or this callback has another one.

        Example:

        ```python
        from transformers import Trainer

        from hf_layertracer import LayerTracerCallback, LayerTracerConfig

        trainer = Trainer(model=model, args=args, train_dataset=dataset, processing_class=tokenizer)
        callback = LayerTracerCallback(LayerTracerConfig(strategy="lisa"))
        callback.attach(trainer)
        trainer.train()
        ```
        """
        if not isinstance(trainer, Trainer):
            raise LayerTracerError(f"attach takes a trainer, not {type(trainer).__name__}.")
        if isinstance(trainer, LayerTracerMixin):
            raise LayerTracerError(f"This {type(trainer).__name__} traces already: there is nothing to attach.")
        if self._trainer() is not None:
            raise LayerTracerError("This callback is attached to another trainer: make one for each.")
        if trainer.state.global_step > 0 or trainer.model_wrapped is not trainer.model:
            raise LayerTracerError("Training has begun: call callback.attach(trainer) before trainer.train().")
        check_sole(trainer, self)
        own = type(trainer)
        trainer.__class__ = type(own.__name__, (LayerTracerMixin, own), {"__module__": own.__module__})
        trainer._trace_with(self)
        trainer._put_among_callbacks()

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        began = time.perf_counter()
        if self._trainer() is None:
            begin_alone(self.tracer, args, state, model, **kwargs)
        seconds = time.perf_counter() - began
        super().on_train_begin(args, state, control, model, **kwargs)
        self.tracer.seconds_apart += seconds  # the trainer's clock runs already
