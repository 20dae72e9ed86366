"""Tracing from a trainer's events alone, the first of which comes when optimizer and data loaders are there.

The optimizer keeps what the plan freezes. Without a gradient, optimizers pass a parameter over: it gets no update and no
weight decay, and all but Adagrad make no state for it. A checkpoint then fits the optimizer of the run that goes on from it,
whose state is loaded before this event, too.
"""

from __future__ import annotations

from typing import Any

from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch import nn
from torch.utils.data import DataLoader
from transformers import TrainerState, TrainingArguments

from ..errors import LayerTracerError
from ..planning import read_plan, strategy_named
from ..planning.config import LayerTracerConfig
from .checkpoints import checkpoint_of
from .probing import can_be_read_again, has_rows
from .proportion import rows_to_train
from .tracer import Tracer


def begin_alone(
    tracer: Tracer,
    args: TrainingArguments,
    state: TrainerState,
    model: nn.Module,
    *,
    processing_class: Any = None,
    train_dataloader: DataLoader | None = None,
    eval_dataloader: DataLoader | None = None,
    **_: Any,
) -> None:
    """Diagnoses and freezes a model that a trainer is about to train.

    Args:
        tracer ([`Tracer`]): The run's tracer.
        args ([`~transformers.TrainingArguments`]): The trainer's arguments.
        state ([`~transformers.TrainerState`]): Its state; past step 0, the run goes on from the checkpoint of that step.
        model (`nn.Module`): The model.
        processing_class (`Any`, *optional*): What the data are processed with.
        train_dataloader, eval_dataloader (`DataLoader`, *optional*): Where probes are drawn from, the latter first.

    Raises:
        LayerTracerError: The run needs the trainer itself, or cannot be traced for a reason of its own.
    """
    check_alone(tracer.config)
    if not tracer.is_prepared_for(model):
        loader = eval_dataloader if has_rows(_data_of(eval_dataloader)) else train_dataloader
        data = _data_of(loader)
        tracer.prepare(
            model,
            tokenizer=processing_class,
            dataset=data if can_be_read_again(data) else None,  # what is read here would be missing from the training
            collator=getattr(loader, "collate_fn", None),
            resume_from=_checkpoint(args, state),
            output_dir=args.output_dir,
            rows_to_train=rows_to_train(args, _data_of(train_dataloader)),
        )
    if tracer.changes is not None:  # a checkpoint's plan
        raise _needs_trainer(_changes(tracer.report.plan.strategy))


def check_alone(config: LayerTracerConfig) -> None:
    """Refuses what cannot be done from events.

    Args:
        config ([`LayerTracerConfig`]): The settings of the run.

    Raises:
        LayerTracerError: One line, which says what and how to do it.
    """
    kind = AcceleratorState().distributed_type
    if kind != DistributedType.NO:
        raise _needs_trainer(
            f"This training runs under {kind.value}, which wraps the model before a callback hears of it"
        )
    strategy = config.strategy if config.plan is None else read_plan(config.plan).strategy
    if strategy_named(strategy).change is not None:
        raise _needs_trainer(_changes(strategy))
    if config.max_memory is not None:
        raise _needs_trainer("max_memory is compared with a step of the trainer")
    if config.prefix_cache is not None:
        raise _needs_trainer("prefix_cache stands between the trainer's data and its model")


def _changes(strategy: str) -> str:
    return f"The strategy {strategy!r} changes what trains, and the optimizer with it"


def _needs_trainer(reason: str) -> LayerTracerError:
    return LayerTracerError(f"{reason}: call callback.attach(trainer) between Trainer(...) and trainer.train().")


def _data_of(loader: DataLoader | None) -> Any:
    return getattr(loader, "dataset", None)


def _checkpoint(args: TrainingArguments, state: TrainerState) -> str | None:
    """The checkpoint that a run goes on from, where it was saved; events do not tell where it was loaded from."""
    if state.global_step == 0:
        return None
    checkpoint = checkpoint_of(args, state)
    if not checkpoint.is_dir():
        raise LayerTracerError(
            f"The run goes on from step {state.global_step}, and there is no {checkpoint} to take its plan from: set "
            "output_dir to the folder that holds the checkpoint, or call callback.attach(trainer) in both runs."
        )
    return str(checkpoint)
