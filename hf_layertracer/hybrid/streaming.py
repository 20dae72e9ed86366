"""Models that run with their weights on disk: each module's are read when it runs, so memory stays flat."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from ..errors import LayerTracerError
from ..modeling import find_parts
from .donors import Donor
from .safetensors_io import StoredTensor


Slot = tuple[nn.Module, str]  # a parameter: its module and its name there


@contextmanager
def streamed(
    donor: Donor, dtype: torch.dtype, scratch: Path, only: Collection[int] | None = None
) -> Iterator[PreTrainedModel]:
    """A model whose weights stay on disk until a module runs, so that memory does not grow with the model.

    Args:
        donor ([`Donor`]): The model.
        dtype (`torch.dtype`): Data type to run in.
        scratch (`Path`): Folder for what transformers converts on the way.
        only (`Collection[int]`, *optional*): Layers whose weights are wanted; no others need be read.

    Yields:
        `PreTrainedModel`: The model.

    Raises:
        LayerTracerError: Its files do not hold exactly the tensors that its class has.
    """
    with ExitStack() as stack:
        model = _read_as_it_runs(donor, dtype, only, stack)
        yield model if model is not None else stack.enter_context(_loaded(donor.whole(), dtype, scratch))


def _read_as_it_runs(
    donor: Donor, dtype: torch.dtype, only: Collection[int] | None, stack: ExitStack
) -> PreTrainedModel | None:
    """The model with hooks that read its weights, or `None` where only transformers can say which tensor goes where."""
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(donor.config, dtype=dtype)
    model.tie_weights()
    names = _names(model, donor)
    if names is None:
        return None
    found = find_parts(model).layers
    layers = {module: number for number, layer in enumerate(found) for module in layer.modules()}
    units: dict[nn.Module, dict[Slot, str]] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            # A layer's weights are there while it runs: some modules use those of another without running it.
            unit = found[layers[module]] if module in layers else module
            units.setdefault(unit, {})[module, name] = names[id(parameter)]
    buffers: dict[tuple, Tensor] = {}
    for unit, slots in units.items():
        wanted = only is None or layers.get(unit) in only
        stored = donor.tensors(slots.values()) if wanted else {}
        places = {slot: stored.get(name) for slot, name in slots.items()}
        if any(tensor is not None and tensor.shape != _empty(slot).shape for slot, tensor in places.items()):
            return None
        reader = _Reader(places, dtype, buffers if unit in layers else None)
        stack.callback(unit.register_forward_pre_hook(reader.enter).remove)
        stack.callback(unit.register_forward_hook(reader.leave).remove)
    return model.eval()


def _names(model: PreTrainedModel, donor: Donor) -> dict[int, str] | None:
    """The stored name of each parameter, by its identity; `None` if the files name or keep one otherwise."""
    prefix = f"{model.base_model_prefix}."
    parameters = dict(model.named_parameters(remove_duplicate=False))
    found: dict[int, str] = {}
    for name, parameter in parameters.items():
        for form in (name, name.removeprefix(prefix)):
            if form in donor.files:
                found[id(parameter)] = form
    kept = {name for name, _ in model.named_buffers()} & set(model.state_dict())
    one_dtype = len({parameter.dtype for parameter in parameters.values()}) == 1
    complete = all(id(parameter) in found for parameter in parameters.values())
    return found if complete and one_dtype and not kept else None


def _empty(slot: Slot) -> Tensor:
    module, name = slot
    return module.get_parameter(name)


class _Reader:
    """Reads the weights of a part of a model before it runs, and lets go of them behind it.

    Args:
        places (`dict`): Where the parameters are stored; `None` for those whose values do not matter.
        dtype (`torch.dtype`): Data type to run in.
        buffers (`dict`, *optional*): Memory that parts of equal shapes share.
    """

    def __init__(
        self, places: dict[Slot, StoredTensor | None], dtype: torch.dtype, buffers: dict[tuple, Tensor] | None
    ):
        self._places, self._dtype, self._buffers = places, dtype, buffers
        self._empty = {slot: _empty(slot) for slot in places}

    def enter(self, *_: Any) -> None:
        for number, (slot, stored) in enumerate(self._places.items()):
            shape = self._empty[slot].shape
            buffers = {} if self._buffers is None else self._buffers
            tensor = buffers.get((number, shape))
            if tensor is None:
                tensor = buffers[number, shape] = torch.zeros(shape, dtype=self._dtype)
            if stored is not None:
                stored.load_into(tensor)
            self._set(slot, nn.Parameter(tensor, requires_grad=False))

    def leave(self, *_: Any) -> None:
        for slot, empty in self._empty.items():
            self._set(slot, empty)

    @staticmethod
    def _set(slot: Slot, parameter: Any) -> None:
        module, name = slot
        module._parameters[name] = parameter


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
