"""What stands around a model: launchers, compilers, adapters, devices, and its own accounts of where it begins and ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate.utils import extract_model_from_parallel
from torch import nn
from transformers import PreTrainedModel


def unwrap(model: nn.Module) -> nn.Module:
    """The model itself, out of DDP, FSDP, DeepSpeed and `torch.compile` wrappers and out of PEFT.

    PEFT's adapters stay: they live inside the modules of the model that is returned. FSDP2 and accelerate's device maps
    change a model in place and need no unwrapping.
    """
    # Once a layer: of a compiled model inside DDP, accelerate takes off the outer wrapper alone.
    while (inner := extract_model_from_parallel(model, keep_torch_compile=False)) is not model:
        model = inner
    # Where nobody has imported PEFT, which takes a while, the model is not one of its.
    peft = sys.modules.get("peft")
    if peft is not None and isinstance(model, peft.PeftModel | peft.PeftMixedModel):
        return model.get_base_model() if isinstance(model, peft.PeftModel) else model.base_model.model
    return model


def without_autocast(model: nn.Module) -> nn.Module:
    """Takes off the autocast that accelerate puts around the forward pass of a model that trains in mixed precision.

    accelerate's own way, `keep_fp32_wrapper=False`, takes the decorators of transformers' classes off as well.

    Args:
        model (`nn.Module`): The model that was prepared, out of what stands around it; it is changed.

    Returns:
        `nn.Module`: The same model, with the forward pass of its class.
    """
    if vars(model).pop("_original_forward", None) is not None:
        vars(model).pop("forward")
    return model


@contextmanager
def whole_parameters(model: nn.Module) -> Iterator[None]:
    """Gathers what DeepSpeed's ZeRO-3 has shared out over the processes, which all have to take part.

    FSDP gathers by itself whatever runs; DeepSpeed does once its engine is there, which is after the plan.

    Args:
        model (`nn.Module`): The model.
    """
    shared = [parameter for parameter in model.parameters() if _is_of_zero_3(parameter)]
    if not shared:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(shared):
        yield


def is_sharded(model: nn.Module) -> bool:
    """Whether no process holds the whole model, so that all must make the same passes."""
    if any(
        isinstance(parameter, torch.distributed.tensor.DTensor) or _is_of_zero_3(parameter)
        for parameter in model.parameters()
    ):
        return True
    return any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules())


def _is_of_zero_3(parameter: nn.Parameter) -> bool:
    return hasattr(parameter, "ds_id")


def put_shards_back(model: nn.Module) -> None:
    """Gives a model its own parameters back where FSDP2 has left whole ones in their place.

    After a forward pass without a backward pass, as in a diagnosis, the outermost modules still hold the parameters that
    were gathered: flags that are set on these are lost, and an optimizer that takes them trains nothing.

    Args:
        model (`nn.Module`): The model.
    """
    if torch.distributed.is_available():
        from torch.distributed.fsdp import FSDPModule

        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


def input_device(model: nn.Module, embeddings: nn.Module | None) -> torch.device:
    """The device that token ids belong on: that of the embedding, or the one accelerate runs it on when it is offloaded.

    Args:
        model (`nn.Module`): The unwrapped model.
        embeddings (`nn.Module`, *optional*): Its input embedding.

    Returns:
        `torch.device`: The device.
    """
    module = model if embeddings is None else embeddings
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    if device.type == "meta":
        hooks = (getattr(part, "_hf_hook", None) for part in module.modules())
        running = (getattr(hook, "execution_device", None) for hook in hooks)
        device = next((torch.device(place) for place in running if place is not None), device)
    return device


def input_embeddings(model: nn.Module) -> nn.Module | None:
    """What a model embeds its input with, as it says itself.

    Args:
        model (`nn.Module`): The unwrapped model.

    Returns:
        `nn.Module`: The module, or `None` where the model does not say, as those of sound and of time series.
    """
    return _said_by(model, "get_input_embeddings")


def output_embeddings(model: nn.Module) -> nn.Module | None:
    """The head that makes a logit for each token of a vocabulary, as the model says itself.

    Args:
        model (`nn.Module`): The unwrapped model.

    Returns:
        `nn.Module`: The module, or `None` where the model does not say or has another kind of head.
    """
    return _said_by(model, "get_output_embeddings")


def _said_by(model: nn.Module, method: str) -> nn.Module | None:
    if not isinstance(model, PreTrainedModel):
        return None
    try:
        return getattr(model, method)()
    except (NotImplementedError, AttributeError):  # as transformers answers for models that have none
        return None
