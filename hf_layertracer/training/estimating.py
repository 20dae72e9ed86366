"""What a run's first batch says about the memory that all of it will take."""

from __future__ import annotations

from typing import Any

import psutil
import torch
from transformers import Trainer

from ..errors import LayerTracerError
from ..estimate.estimate import RunEstimator, TrainingEstimate
from ..estimate.limits import traced_memory
from ..logs import get_logger
from ..planning.fitting import MemoryOfPlans
from ..records import LayerPlan
from ..text import gibibytes


logger = get_logger(__name__)

# Tracing a step costs a few seconds for a deep model, which a shorter run would notice.
_FEWEST_STEPS = 100


def estimate_of_run(trainer: Trainer, inputs: Any, plan: LayerPlan) -> TrainingEstimate | None:
    """Estimates a run before its first step, from its model, its arguments and the shape of its first batch.

    Args:
        trainer ([`~transformers.Trainer`]): The trainer.
        inputs (`dict`): The first batch.
        plan ([`LayerPlan`]): The plan in force on its model; without it, what can train would count as what does.

    Returns:
        [`TrainingEstimate`]: The estimate of one process, or `None` where the run is short, or where a launcher shards its
            model or its tokens are not known.
    """
    ids = inputs.get("input_ids") if hasattr(inputs, "get") else None
    sharded = trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled or trainer.is_distributed_loading_by_transformers
    if trainer.state.max_steps < _FEWEST_STEPS or sharded or not isinstance(ids, torch.Tensor) or ids.ndim != 2:
        return None
    try:
        run = RunEstimator(
            trainer.model, trainer.args, sequence_length=ids.shape[1], world_size=trainer.args.world_size
        )
        return run.estimate(plan)
    except LayerTracerError as error:  # a step of a model that is not causal, or of an unusual optimizer
        logger.info(f"The memory of this run cannot be estimated. {error}")
        return None


def memory_of_run(trainer: Trainer, rows: list[Any]) -> MemoryOfPlans | None:
    """What plans take in a run, for a limit on memory, before the model is wrapped.

    Args:
        trainer ([`~transformers.Trainer`]): The trainer.
        rows (`list[Any]`): Some rows of its data: the longest says how long a batch is.

    Returns:
        [`MemoryOfPlans`]: From a traced step, or `None` where none can be traced; then the rest is counted.
    """
    ids = [row["input_ids"] for row in rows if isinstance(row, dict) and row.get("input_ids") is not None]
    longest = max((len(one) for one in ids if hasattr(one, "__len__")), default=None)
    if trainer.is_deepspeed_enabled or trainer.is_distributed_loading_by_transformers:
        logger.warning("max_memory counts no activations here: a sharded model cannot be traced.")
        return None
    sharding = "fsdp" if trainer.is_fsdp_enabled else "ddp"
    try:
        return traced_memory(
            trainer.model,
            trainer.args,
            sequence_length=getattr(trainer.args, "max_length", None) or longest,
            world_size=trainer.args.world_size,
            sharding=sharding,
        )
    except LayerTracerError as error:
        logger.warning(f"max_memory counts no activations here. {error}")
        return None


def expected_peak(estimate: TrainingEstimate, device: torch.device) -> int:
    """What [`peak_bytes`] should read after training.

    Args:
        estimate ([`TrainingEstimate`]): The estimate.
        device (`torch.device`): The training device.

    Returns:
        `int`: The estimate of what an accelerator holds; of a process on a CPU, what it holds now and what will come on top
            of the weights.
    """
    if device.type in ("cuda", "xpu"):
        return estimate.total_bytes
    return psutil.Process().memory_info().rss + estimate.total_bytes - estimate.weights_bytes


def estimate_line(estimate: TrainingEstimate, *, may_change: bool = False) -> str:
    """The estimate in one line.

    Args:
        estimate ([`TrainingEstimate`]): The estimate.
        may_change (`bool`, *optional*, defaults to `False`): Whether something else may train later.

    Returns:
        `str`: The line.
    """
    parts = {
        "weights": estimate.weights_bytes,
        "gradients": estimate.gradient_bytes,
        "optimizer": estimate.optimizer_bytes,
        "activations": estimate.activation_bytes,
    }
    said = ", ".join(f"{name} {gibibytes(size)}" for name, size in parts.items())
    at_first = ", with what trains at first" if may_change else ""
    return f"Training takes {gibibytes(estimate.total_bytes)} of memory in a process at its peak{at_first} ({said}; traced)."
