"""Tensors on disk, one file a row, within a limit."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ..files import check_writable


class RowStore:
    """Keeps tensors by key, until a limit is reached; what is there then stays.

    Args:
        folder (`Path`): Where the files lie; several processes may share it.
        limit (`int`, *optional*):
            Bytes that all files in the folder may take, those of earlier runs included; by default, new ones take half of
            what is free on the disk at most.
        share (`int`, *optional*, defaults to `1`): How many processes share what is left of the limit.

    Raises:
        LayerTracerError: Nothing can be written to the folder.
    """

    def __init__(self, folder: Path, limit: int | None, share: int = 1):
        check_writable(folder)
        self._folder = folder
        if limit is None:
            folder.mkdir(parents=True, exist_ok=True)
            self.left = shutil.disk_usage(folder).free // 2 // share
        else:
            there = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
            self.left = max(limit - there, 0) // share

    def get(self, key: str) -> Tensor | None:
        """A tensor, or `None` where it was not kept or its file is damaged.

        Args:
            key (`str`): What it was kept under, a hexadecimal number.
        """
        try:
            return load_file(self._path(key))["row"]
        except (OSError, SafetensorError, KeyError):
            return None

    def put(self, key: str, row: Tensor) -> bool:
        """Keeps a tensor.

        Args:
            key (`str`): A name for it, a hexadecimal number.
            row (`Tensor`): The tensor, on a CPU.

        Returns:
            `bool`: Whether there was room.
        """
        content = save({"row": row.contiguous()})
        if len(content) > self.left:
            return False
        path = self._path(key)
        temporary = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(suffix=".tmp", dir=path.parent)
            # Not forced to the disk: what a power failure cuts short is damaged, and computed anew.
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            os.replace(temporary, path)
        except OSError:  # a full disk ends no training
            if temporary is not None:
                Path(temporary).unlink(missing_ok=True)
            self.left = 0
            return False
        self.left -= len(content)
        return True

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.safetensors"


def same_values(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are one result computed twice: equal up to what another order of sums changes.

    Args:
        one, other (`Tensor`): The tensors.
    """
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    tolerance = 1e-4 if one.dtype in (torch.float32, torch.float64) else 2e-2
    one, other = one.detach().double(), other.detach().to(one.device).double()
    return bool((one - other).abs().max() <= tolerance * one.abs().max().clamp_min(1e-6))
