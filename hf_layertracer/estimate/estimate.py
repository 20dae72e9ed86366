"""What a training run will need, before it starts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, TrainingArguments

from ..errors import LayerTracerError
from ..modeling import context_length, find_parts
from ..modeling.in_force import trainable_before_plan
from ..modeling.loading import load_config
from ..modeling.weights import main_dtype
from ..planning import apply_plan
from ..records import LayerPlan, Record
from ..text import dtype_name
from .devices import UTILISATION, find_device
from .sharding import share_out
from .step import FakeModel, trace_step


_DEFAULT_LENGTH = 1024
# Beyond what tensors hold: the allocator's fragments and the libraries' own workspaces.
_MARGIN = 0.1


def with_margin(size: int) -> int:
    """What has to be free for so many bytes of tensors."""
    return int(size * (1 + _MARGIN))


class TrainingEstimate(Record):
    """Memory and time of a training run on one device.

    Args:
        weights_bytes (`int`): Parameters and buffers. *Counted.*
        gradient_bytes (`int`): Gradients of what trains. *Traced.*
        optimizer_bytes (`int`): The optimizer's state. *Traced.*
        activation_bytes (`int`): What the forward pass keeps for the backward pass. *Traced.*
        workspace_bytes (`int`): What the fullest moment holds beyond all that, and what a launcher adds. *Traced*, for
            several devices *counted*.
        total_bytes (`int`):
            The fullest moment of a step. Less than the sum of the parts: gradients appear while activations are freed.
        flops_per_step (`int`): Of matrix products and attention, on this device. *Traced.*
        seconds_per_step (`float`, *optional*):
            From the device's published rate at 40 % of it: that of half precision, or of float32 where the weights are in
            float32 and `bf16` and `fp16` are off. *Device table.*
        device (`str`, *optional*): The device that was asked about.
        device_bytes (`int`, *optional*): Its memory.
        fits (`bool`, *optional*): Whether the total with a tenth on top fits it.
        assumptions (`dict[str, Any]`): Batch size, sequence length and all else that the figures hang on.
        proposal (`str`, *optional*): Where it does not fit: the arguments with which it would. *Traced.*
        full ([`TrainingEstimate`], *optional*): The same for training every parameter.
    """

    weights_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    workspace_bytes: int
    total_bytes: int
    flops_per_step: int
    seconds_per_step: float | None = None
    device: str | None = None
    device_bytes: int | None = None
    fits: bool | None = None
    assumptions: dict[str, Any]
    proposal: str | None = None
    full: TrainingEstimate | None = None


class RunEstimator:
    """Estimates plans of one run, as [`estimate_training`] does.

    Args:
        model (`nn.Module`, `PreTrainedConfig` or `str`): As for [`estimate_training`].
        args (`TrainingArguments`, *optional*): The run's.
        options: The other arguments of [`estimate_training`].
    """

    def __init__(
        self,
        model: nn.Module | PreTrainedConfig | str,
        args: TrainingArguments | None = None,
        *,
        sequence_length: int | None = None,
        world_size: int = 1,
        sharding: str = "ddp",
        device: str | None = None,
        dtype: torch.dtype | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
    ):
        if isinstance(model, str):
            model = load_config(model, revision=revision, trust_remote_code=trust_remote_code)
        self._model, self._dtype, self._trusted = model, dtype, trust_remote_code
        self._length, self._world_size, self._sharding = sequence_length, world_size, sharding
        self._device = find_device(device) if device is not None else None
        self.args = args or TrainingArguments(output_dir="trainer_output", report_to="none")

    def estimate(self, plan: LayerPlan | None, args: TrainingArguments | None = None) -> TrainingEstimate:
        """What one plan takes.

        Args:
            plan ([`LayerPlan`], *optional*): What trains; all that can by default.
            args (`TrainingArguments`, *optional*): Another run's, such as one with smaller batches.

        Returns:
            [`TrainingEstimate`]: Without the comparison with full training.

        Raises:
            LayerTracerError: The step cannot be traced.
        """
        args, target = args or self.args, self._device
        world_size, sharding = self._world_size, self._sharding
        fake = FakeModel(self._model, self._dtype, self._trusted)
        parts = find_parts(fake.model)
        if plan is not None:
            apply_plan(fake.model, plan)
        else:
            _undo_plan(parts.model)
        length = _sequence_length(self._length, args, parts.model)
        step = trace_step(fake, args, length)
        layers = (sum(p.nbytes for p in layer.parameters()) for layer in parts.layers)
        share = share_out(
            fake.weights_bytes, step.gradient_bytes, step.optimizer_bytes, max(layers), world_size, sharding
        )
        # Where gradients are sharded, the fullest moment is rid of the others' parts, but not of the activations.
        beside = step.peak_bytes - step.optimizer_bytes - (step.gradient_bytes - share.gradient_bytes)
        beside = max(beside, step.activation_bytes) + share.extra_bytes
        total = share.weights_bytes + share.optimizer_bytes + beside
        rate = target.rate(_in_half_precision(args, parts.model)) if target else None
        seconds = step.flops / (rate * UTILISATION) if rate else None
        return TrainingEstimate(
            weights_bytes=share.weights_bytes,
            gradient_bytes=share.gradient_bytes,
            optimizer_bytes=share.optimizer_bytes,
            activation_bytes=step.activation_bytes,
            workspace_bytes=beside - max(step.activation_bytes, share.gradient_bytes),
            total_bytes=total,
            flops_per_step=step.flops,
            seconds_per_step=seconds,
            device=None if target is None else target.name,
            device_bytes=None if target is None else target.memory_bytes,
            fits=None if target is None else with_margin(total) <= target.memory_bytes,
            assumptions={
                "batch_size": args.per_device_train_batch_size,
                "sequence_length": length,
                "gradient_accumulation_steps": args.gradient_accumulation_steps,
                "precision": "fp16" if args.fp16 else "bf16" if args.bf16 else "that of the weights",
                "weights": "/".join(sorted({dtype_name(p.dtype) for p in parts.model.parameters()})),
                "optimizer": str(getattr(args.optim, "value", args.optim)),
                "activation_checkpointing": args.activation_checkpointing,
                "world_size": world_size,
                "sharding": sharding if world_size > 1 else "none",
            },
        )


def estimate_training(
    model: nn.Module | PreTrainedConfig | str,
    plan: LayerPlan | None = None,
    args: TrainingArguments | None = None,
    *,
    sequence_length: int | None = None,
    world_size: int = 1,
    sharding: str = "ddp",
    device: str | None = None,
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> TrainingEstimate:
    """Estimates memory and time of training under a plan, from a configuration alone if need be.

    The model's real training step is traced with tensors that hold nothing (forward, backward, optimizer), at its full
    depth and with the plan in force, so checkpointing, mixed precision, adapters and any optimizer count as they are.

    Args:
        model (`nn.Module`, `PreTrainedConfig` or `str`): A model, its configuration, or a Hub id or folder, of which
            only the configuration is read.
        plan ([`LayerPlan`], *optional*): What trains; all that can by default.
        args (`TrainingArguments`, *optional*): The run's; transformers' defaults otherwise.
        sequence_length (`int`, *optional*):
            Tokens of each example; `args.max_length` where the arguments have one (as TRL's do), else 1024, and never
            more than the model takes.
        world_size (`int`, *optional*, defaults to `1`): Number of devices.
        sharding (`str`, *optional*, defaults to `"ddp"`):
            How they share the model: `"ddp"`, `"zero1"`, `"zero2"`, `"zero3"` or `"fsdp"`.
        device (`str`, *optional*): An accelerator (`"H100 80GB"`) or an amount of memory (`"24GB"`) that it should fit.
        dtype (`torch.dtype`, *optional*): Data type of the weights; the configuration's own by default.
        revision (`str`, *optional*): Of a Hub id: branch, tag or commit.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Run the code that comes with the model.

    Returns:
        [`TrainingEstimate`]: Of this plan, with full training in `full`.

    Raises:
        LayerTracerError: The model, the plan or an option cannot be used, or the step cannot be traced.

    Example:

    ```python
    >>> from transformers import LlamaConfig
    >>> from hf_layertracer import estimate_training, make_plan
    >>> config = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4)
    >>> estimate = estimate_training(config, sequence_length=32)
    >>> estimate.optimizer_bytes > estimate.gradient_bytes
    True
    ```
    """
    run = RunEstimator(
        model,
        args,
        sequence_length=sequence_length,
        world_size=world_size,
        sharding=sharding,
        device=device,
        dtype=dtype,
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    ours = run.estimate(plan)
    freezes = plan is not None and plan.savings.trainable_parameters < plan.savings.trainable_parameters_full
    ours.full = run.estimate(None) if freezes else ours.model_copy()
    if ours.fits is False:
        ours.proposal = proposal(run.args, lambda smaller: bool(run.estimate(plan, smaller).fits))
    return ours


def proposal(args: TrainingArguments, fits: Callable[[TrainingArguments], bool]) -> str | None:
    """The run with activation checkpointing, and then with smaller batches, until it fits; the batch of a step stays.

    Args:
        args (`TrainingArguments`): The run's.
        fits (`Callable[[TrainingArguments], bool]`): Whether a run fits.

    Returns:
        `str` or `None`: The arguments that change, in words.
    """
    batch, accumulated = args.per_device_train_batch_size, args.gradient_accumulation_steps
    smaller = copy.copy(args)
    smaller.activation_checkpointing = True
    if not args.activation_checkpointing and fits(smaller):
        return "activation_checkpointing=True"
    while batch % 2 == 0:
        batch, accumulated = batch // 2, accumulated * 2
        smaller.per_device_train_batch_size, smaller.gradient_accumulation_steps = batch, accumulated
        if fits(smaller):
            return (
                f"activation_checkpointing=True, per_device_train_batch_size={batch}, "
                f"gradient_accumulation_steps={accumulated}"
            )
    return None


def _undo_plan(model: nn.Module) -> None:
    """Thaws in a copy what the plan in force on its original froze."""
    required = trainable_before_plan(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(required[name])


def _in_half_precision(args: TrainingArguments, model: nn.Module) -> bool:
    """Whether most products are made in half precision: by autocast, or by the type of most weights."""
    return args.bf16 or args.fp16 or main_dtype(model.parameters()) not in (torch.float32, torch.float64)


def _sequence_length(wanted: int | None, args: TrainingArguments, model: nn.Module) -> int:
    longest = context_length(model)
    if wanted is not None and (wanted < 1 or (longest is not None and wanted > longest)):
        raise LayerTracerError(
            f"sequence_length must lie between 1 and the model's {longest} tokens, not at {wanted}."
        )
    length = wanted or getattr(args, "max_length", None) or _DEFAULT_LENGTH
    return min(length, longest) if longest else length
