"""Models that run with their weights on disk: each module's are read when it runs, so memory stays flat."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from ..errors import LayerTracerError
from ..modeling import find_parts
from .donors import Donor
from .safetensors_io import StoredTensor


@contextmanager
def streamed(folder: Path, dtype: torch.dtype, scratch: Path) -> Iterator[PreTrainedModel]:
    """A model whose weights stay on disk until a module runs, so that memory does not grow with the model.

    Args:
        folder (`Path`): The model.
        dtype (`torch.dtype`): Data type to run in.
        scratch (`Path`): Folder for what transformers converts on the way.

    Yields:
        `PreTrainedModel`: The model.

    Raises:
        LayerTracerError: Its files do not hold exactly the tensors that its class has.
    """
    with ExitStack() as stack:
        model = _read_as_it_runs(folder, dtype, stack)
        yield model if model is not None else stack.enter_context(_loaded(folder, dtype, scratch))


def _read_as_it_runs(folder: Path, dtype: torch.dtype, stack: ExitStack) -> PreTrainedModel | None:
    """The model with hooks that read its weights, or `None` where only transformers can say which tensor goes where."""
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=dtype)
    model.tie_weights()
    places = _places(model, Donor(folder.name, folder).tensors)
    if places is None:
        return None
    layers = {id(module): layer for layer in find_parts(model).layers for module in layer.modules()}
    units: dict[nn.Module, list[tuple[nn.Module, str, StoredTensor]]] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            # A layer's weights are there while it runs: some modules use those of another without running it.
            unit = layers.get(id(module), module)
            units.setdefault(unit, []).append((module, name, places[id(parameter)]))
    buffers: dict[tuple, Tensor] = {}
    for unit, slots in units.items():
        reader = _Reader(slots, dtype, buffers if unit in layers.values() else None)
        stack.callback(unit.register_forward_pre_hook(reader.enter).remove)
        stack.callback(unit.register_forward_hook(reader.leave).remove)
    return model.eval()


def _places(model: PreTrainedModel, stored: dict[str, StoredTensor]) -> dict[int, StoredTensor] | None:
    """The stored tensor of each parameter, by its identity; `None` if the files name, shape or keep one otherwise."""
    prefix = f"{model.base_model_prefix}."
    parameters = dict(model.named_parameters(remove_duplicate=False))
    found: dict[int, StoredTensor] = {}
    for name, parameter in parameters.items():
        for form in (name, name.removeprefix(prefix)):
            tensor = stored.get(form)
            if tensor is not None and tensor.shape == tuple(parameter.shape) and tensor.dtype.is_floating_point:
                found[id(parameter)] = tensor
    kept = {name for name, _ in model.named_buffers()} & set(model.state_dict())
    one_dtype = len({parameter.dtype for parameter in parameters.values()}) == 1
    complete = all(id(parameter) in found for parameter in parameters.values())
    return found if complete and one_dtype and not kept else None


class _Reader:
    """Reads the weights of a part of a model before it runs, and lets go of them behind it.

    Args:
        slots (`list`): Module, name of the parameter and where it is stored.
        dtype (`torch.dtype`): Data type to run in.
        buffers (`dict`, *optional*): Memory that parts of equal shapes share.
    """

    def __init__(
        self,
        slots: list[tuple[nn.Module, str, StoredTensor]],
        dtype: torch.dtype,
        buffers: dict[tuple, Tensor] | None,
    ):
        self._slots, self._dtype, self._buffers = slots, dtype, buffers
        self._empty = [module._parameters[name] for module, name, _ in slots]

    def enter(self, *_: Any) -> None:
        for number, (module, name, stored) in enumerate(self._slots):
            key = (number, stored.shape)
            tensor = None if self._buffers is None else self._buffers.get(key)
            if tensor is None:
                tensor = torch.empty(stored.shape, dtype=self._dtype)
                if self._buffers is not None:
                    self._buffers[key] = tensor
            stored.load_into(tensor)
            module._parameters[name] = nn.Parameter(tensor, requires_grad=False)

    def leave(self, *_: Any) -> None:
        for slot, empty in zip(self._slots, self._empty, strict=True):
            slot[0]._parameters[slot[1]] = empty


@contextmanager
def _loaded(folder: Path, dtype: torch.dtype, scratch: Path) -> Iterator[PreTrainedModel]:
    """The model as transformers loads it, with all its weights left on disk."""
    with tempfile.TemporaryDirectory(dir=scratch) as offload:
        # That weights stay on disk is what is wanted here, and no reason for a warning.
        accelerate_logger = logging.getLogger("accelerate.big_modeling")
        accelerate_logger.addFilter(_is_no_news)
        try:
            model, info = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                device_map={"": "disk"},
                offload_folder=offload,
                output_loading_info=True,
                use_safetensors=True,
            )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise LayerTracerError(f"{folder.name} does not load: {' '.join(str(error).split())[:300]}") from error
        finally:
            accelerate_logger.removeFilter(_is_no_news)
        for what in ("missing_keys", "mismatched_keys"):
            if info.get(what):
                raise LayerTracerError(
                    f"{folder.name} does not load whole: {what.replace('_', ' ')}: {sorted(info[what])[0]}."
                )
        yield model.eval()


def _is_no_news(record: logging.LogRecord) -> bool:
    return "offloaded to the disk" not in record.getMessage()
