"""A training step without arithmetic: its tensors have shapes and sizes, and no values.

The model's own forward pass, autograd and the optimizer run for real, on tensors that hold nothing. What PyTorch keeps
for the backward pass under a plan, with checkpointing or in mixed precision, is counted as it happens rather than
derived from formulas.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

# Private, as PyTorch has no public way to run on fake tensors: checked with torch 2.13 and transformers 5.23 by
# tests/estimate/test_estimate.py, which compares with what real steps allocate.
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count
from transformers import AutoModelForCausalLM, PreTrainedConfig, Trainer, TrainingArguments, masking_utils
from transformers.integrations import moe

from ..errors import LayerTracerError
from ..modeling.accounting import PeakBytes
from ..modeling.wrappers import without_autocast


# transformers multiplies the rows of all experts at once, in an operation that PyTorch's counter does not know.
_EXPERTS = torch.ops.aten._grouped_mm
_EXPERTS_FALLBACK = torch.ops.transformers.grouped_mm_fallback
_EXPERTS_FALLBACK_BACKWARD = torch.ops.transformers.grouped_mm_fallback_backward
_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_ATTENTION_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def _experts_flops(rows: Tensor, weights: Tensor, *_: Any, **__: Any) -> int:
    """Each row is multiplied with the matrix of one expert; two stacks of matrices are multiplied one by one."""
    stacked = rows.shape[0] if rows.ndim == weights.ndim == 3 else 1
    return 2 * stacked * rows.shape[-2] * rows.shape[-1] * weights.shape[-1]


# PyTorch counts attention on accelerators, and not the operation that a CPU has for it.
_FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    _EXPERTS: _experts_flops,
    _EXPERTS_FALLBACK: _experts_flops,
    _EXPERTS_FALLBACK_BACKWARD: lambda *tensors, **__: 2 * _experts_flops(*tensors),
    _ATTENTION: lambda query, key, value, *_, **__: sdpa_flop_count(query.shape, key.shape, value.shape),
    _ATTENTION_BACKWARD: lambda gradient, query, key, value, *_, **__: sdpa_backward_flop_count(
        gradient.shape, query.shape, key.shape, value.shape
    ),
}


@dataclass(frozen=True)
class TracedStep:
    """What one optimizer step holds and does on one device.

    Args:
        gradient_bytes (`int`): Gradients of all parameters that train.
        optimizer_bytes (`int`): The optimizer's state.
        activation_bytes (`int`): What the end of the forward pass holds for the backward pass.
        peak_bytes (`int`): The most that is held at once beyond the weights.
        flops (`int`): Floating-point operations of matrix products and attention, forward and backward.
    """

    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    peak_bytes: int
    flops: int


class FakeModel:
    """A model whose tensors hold nothing, with the mode that its operations have to run in.

    Args:
        source (`nn.Module` or `PreTrainedConfig`): A loaded model, wrapped by PEFT or not, or a configuration.
        dtype (`torch.dtype`, *optional*): Of a configuration: the data type of the weights; its own by default.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Of a configuration: run the code that comes with it.

    Raises:
        LayerTracerError: There is no causal language model for the configuration, or the model cannot be copied so.
    """

    def __init__(
        self,
        source: nn.Module | PreTrainedConfig,
        dtype: torch.dtype | None = None,
        trust_remote_code: bool = False,
    ):
        self.mode = FakeTensorMode()
        try:
            if isinstance(source, nn.Module):
                self.model = self._copy(source)
            else:
                with self.mode:
                    self.model = AutoModelForCausalLM.from_config(
                        source, dtype=dtype or source.dtype or torch.float32, trust_remote_code=trust_remote_code
                    )
        except (ValueError, RuntimeError, NotImplementedError, AssertionError) as error:
            name = type(source).__name__
            raise LayerTracerError(f"{name} cannot be traced without weights: {error!s:.200}") from error

    def _copy(self, model: nn.Module) -> nn.Module:
        with FakeCopyMode(self.mode):
            fake = without_autocast(copy.deepcopy(model))  # accelerate's would run the real model
        # The model's own device may not be there (meta, or an accelerator on another machine). Shared tensors stay shared.
        moved: dict[int, Tensor] = {}
        with self.mode:
            for module in fake.modules():
                for held in (module._parameters, module._buffers):
                    for name, tensor in held.items():
                        if tensor is not None and tensor.device.type != "cpu":
                            held[name] = moved.setdefault(id(tensor), _on_cpu(tensor))
        return fake

    @property
    def weights_bytes(self) -> int:
        """Bytes of all parameters and buffers, shared ones once."""
        tensors = {id(tensor): tensor for tensor in [*self.model.parameters(), *self.model.buffers()]}
        return sum(tensor.nbytes for tensor in tensors.values())


def trace_step(fake: FakeModel, args: TrainingArguments, sequence_length: int) -> TracedStep:
    """Runs an optimizer step on a fake model, with the optimizer's state in place as it is from the second step on.

    Args:
        fake ([`FakeModel`]): The model; what requires a gradient trains.
        args (`TrainingArguments`): Batch size, accumulation, precision, checkpointing and optimizer are read.
        sequence_length (`int`): Tokens of each example.

    Returns:
        [`TracedStep`]: Bytes and operations.

    Raises:
        LayerTracerError: The optimizer is not installed, or something in the step needs the values of a tensor.
    """
    model = fake.model.train()
    try:
        with fake.mode:
            if args.activation_checkpointing:
                model.activation_checkpointing_enable(args.activation_checkpointing_kwargs)
            make, settings = Trainer.get_optimizer_cls_and_kwargs(args, model)
            optimizer = make([p for p in model.parameters() if p.requires_grad], **settings)
            return _steps(model, optimizer, args, sequence_length)
    except ImportError as error:
        raise LayerTracerError(f"The optimizer {args.optim!s} cannot be estimated: {error}") from error
    except (RuntimeError, NotImplementedError, TypeError) as error:
        raise LayerTracerError(
            f"A training step of {type(model).__name__} with {args.optim!s} cannot be traced without values "
            f"({type(error).__name__}: {error!s:.160})."
        ) from error


def _steps(model: nn.Module, optimizer: torch.optim.Optimizer, args, sequence_length: int) -> TracedStep:
    half = torch.float16 if args.fp16 else torch.bfloat16
    # Gradients wait for the last micro-batch: from the second on, they are there during the forward pass.
    micro_batches = min(args.gradient_accumulation_steps, 2)
    activations = 0
    with _unpacked(), _any_experts(), PeakBytes() as memory:
        # The state is there from the first step on: a step without a forward pass makes it.
        for parameter in model.parameters():
            parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
        optimizer.step()
        optimizer.zero_grad()
        for _ in range(micro_batches):
            tokens = torch.ones(args.per_device_train_batch_size, sequence_length, dtype=torch.long)
            held = memory.alive
            with _Operations() as operations:
                with torch.autocast("cpu", dtype=half, enabled=args.fp16 or args.bf16):
                    loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
                activations = memory.alive - held
                loss.backward()
            del loss
        gradients = _bytes(parameter.grad for parameter in model.parameters())
        optimizer.step()
    state = _bytes(value for values in optimizer.state.values() for value in values.values())
    flops = operations.flops * args.gradient_accumulation_steps
    return TracedStep(gradients, state, activations, memory.peak, flops)


class _Operations(TorchDispatchMode):
    """Counts floating-point operations. PyTorch's own counter keeps alive what checkpointing would free."""

    def __init__(self):
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        output = func(*args, **(kwargs or {}))
        formula = _FORMULAS.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=output)
        return output


@contextmanager
def _unpacked() -> Iterator[None]:
    """Each row is one whole sequence: transformers cannot see that of tensors without values, and would make a mask."""
    with mock.patch.object(masking_utils, "find_packed_sequence_indices", return_value=None):
        yield


@contextmanager
def _any_experts() -> Iterator[None]:
    """PyTorch knows the shape of grouped products in bfloat16 alone: in other types, transformers' own stand in."""

    def can_use(rows: Tensor, weights: Tensor, ends: Tensor) -> bool:
        return weights.dtype == torch.bfloat16

    with mock.patch.object(moe, "_can_use_grouped_mm", can_use):
        yield


def _on_cpu(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor.detach(), device="cpu")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def _bytes(values: Iterable[object]) -> int:
    return sum(value.nbytes for value in values if isinstance(value, Tensor))
