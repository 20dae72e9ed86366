"""What a model's weights are: their main data type, and whether the model writes to them and what they had been."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Sized(Protocol):
    """A tensor, whether it is in memory or in a file."""

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def nbytes(self) -> int: ...


def main_dtype(tensors: Iterable[Sized]) -> torch.dtype:
    """The floating-point data type that most of the bytes have.

    Args:
        tensors (`Iterable[Tensor]`): Tensors, in memory or in a file.

    Returns:
        `torch.dtype`: The data type; float32 where there are no such tensors.
    """
    sizes: Counter[torch.dtype] = Counter()
    for tensor in tensors:
        if tensor.dtype.is_floating_point:
            sizes[tensor.dtype] += tensor.nbytes
    return max(sizes, key=sizes.__getitem__, default=torch.float32)


class Fingerprints:
    """A checksum of every parameter and buffer of a model.

    Args:
        model (`nn.Module`): The model.
    """

    def __init__(self, model: nn.Module):
        self.known = [(name, tensor, checksum(tensor)) for name, tensor in _weights(model)]

    def changed(self) -> list[str]:
        """Names of what has another checksum by now; what ZeRO-3 has handed back meanwhile cannot be read."""
        now = [(name, known, checksum(tensor)) for name, tensor, known in self.known]
        return [name for name, known, found in now if None not in (known, found) and known != found]


def can_be_watched(model: nn.Module) -> bool:
    """Whether a model runs while its operations are watched: flex attention compiles itself in the midst of a pass."""
    configs = [module.config for module in model.modules() if hasattr(module, "config")]
    return not any(getattr(config, "_attn_implementation", None) == "flex_attention" for config in configs)


class KeptOriginals(TorchDispatchMode):
    """Watches what is written to a model's parameters and buffers inside a `with` block, and can put it back.

    Of what is written to, a copy is made just before. Where nothing is, as in nearly every model, this costs no memory.

    Args:
        model (`nn.Module`): The model.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self._weights = {_address(tensor): tensor for _, tensor in _weights(model)}
        self._originals: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        schema = getattr(func, "_schema", None)
        if schema is not None and schema.is_mutable:
            for value in tree_leaves((args, kwargs)):
                if isinstance(value, Tensor):
                    address = _address(value)
                    if address in self._weights and address not in self._originals:
                        weight = self._weights[address]
                        self._originals[address] = weight, weight.detach().clone()
        return func(*args, **(kwargs or {}))

    def put_back(self) -> None:
        """Gives everything that was written to its value of before."""
        for weight, original in self._originals.values():
            weight.data.copy_(original)


def own_part(tensor: Tensor) -> Tensor:
    """The part of a sharded tensor that this process holds; any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, torch.distributed.tensor.DTensor) else tensor


def checksum(tensor: Tensor) -> int | None:
    """The sum of a tensor's bytes, eight at a time; `None` where there is nothing to read.

    Args:
        tensor (`Tensor`): A tensor of any type; of a sharded one, the part of this process.

    Returns:
        `int` or `None`: A number that differs, but for an unlucky chance, where any value does.
    """
    local = own_part(tensor)
    if local.device.type == "meta" or local.numel() == 0:
        return None
    raw = local.detach().reshape(-1).view(torch.uint8)
    aligned = len(raw) // 8 * 8 if raw.storage_offset() % 8 == 0 else 0
    total = raw[aligned:].sum(dtype=torch.int64)
    if aligned:
        total = total + raw[:aligned].view(torch.int64).sum()
    return int(total)


def _weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
