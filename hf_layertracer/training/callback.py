"""Tracing as a callback, for a trainer whose class cannot be swapped."""

from __future__ import annotations

import inspect
from typing import Any

from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

from ..errors import LayerTracerError
from .events import TracingEvents
from .trainer import LayerTracerMixin


class LayerTracerCallback(TracingEvents):
    """Traces a training run: `Trainer(..., callbacks=[LayerTracerCallback()])`.

    The trainer then does all that a [`LayerTracerTrainer`] does: events alone come too late to freeze a model before it is
    wrapped, and show neither data nor checkpoints, so the callback adds [`LayerTracerMixin`] to the trainer that has it.

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

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        trainer = _trainer_being_made()
        if isinstance(trainer, LayerTracerMixin):
            raise LayerTracerError(f"A {type(trainer).__name__} traces already: leave LayerTracerCallback out.")
        own = type(trainer)
        # The name stays: it shows in logs and cards.
        trainer.__class__ = type(own.__name__, (LayerTracerMixin, own), {"__module__": own.__module__})
        trainer._trace_with(self)


def _trainer_being_made() -> Trainer:
    """The trainer whose constructor is running. It calls its callbacks, but does not hand itself over."""
    frame = inspect.currentframe()
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, Trainer):
            return owner
        frame = frame.f_back
    raise LayerTracerError("LayerTracerCallback works within a Trainer only: Trainer(..., callbacks=[callback]).")
