"""safetensors files, read and written one tensor at a time: no file is mapped, no model is held in memory."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from io import FileIO
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ..errors import LayerTracerError


SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
_CHUNK, _COPIED_AT_ONCE = 8 * 2**20, 2**30
# Between file systems, or where one of them does not know how: then the bytes go through memory.
_NO_KERNEL_COPY = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF}
_LONGEST_HEADER = 100_000_000  # as the format's own library has it


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies.

    Args:
        name (`str`): Its name in the file.
        dtype (`torch.dtype`): Its data type.
        shape (`tuple[int, ...]`): Its shape.
        file (`Path`): The safetensors file.
        offset, nbytes (`int`): Its bytes in the file.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    file: Path
    offset: int
    nbytes: int

    def chunks(self, stream: FileIO | None = None) -> Iterator[memoryview]:
        """The tensor's bytes in pieces; each is only good until the next.

        Args:
            stream (`FileIO`, *optional*): The open file; it is opened by default.
        """
        buffer = memoryview(bytearray(min(_CHUNK, self.nbytes)))
        with nullcontext(stream) if stream is not None else self.file.open("rb", buffering=0) as file:
            file.seek(self.offset)
            left = self.nbytes
            while left:
                count = file.readinto(buffer[: min(left, len(buffer))])
                if not count:
                    raise self.shrunk()
                left -= count
                yield buffer[:count]

    def shrunk(self) -> LayerTracerError:
        """What to say of a file that ended too early."""
        return LayerTracerError(f"{self.file} ends inside {self.name!r}: it changed while it was read.")

    def load(self) -> Tensor:
        """The tensor, in its own memory."""
        tensor = torch.empty(self.shape, dtype=self.dtype)
        self.load_into(tensor)
        return tensor

    def load_into(self, tensor: Tensor) -> None:
        """Reads the tensor into memory that is there, and into its data type.

        Args:
            tensor (`Tensor`): Of the same shape, and contiguous.
        """
        if tensor.dtype != self.dtype:
            tensor.copy_(self.load())
        elif self.nbytes:
            left = memoryview(tensor.view(-1).view(torch.uint8).numpy())
            with self.file.open("rb", buffering=0) as file:
                file.seek(self.offset)
                while left:
                    count = file.readinto(left)
                    if not count:
                        raise self.shrunk()
                    left = left[count:]


def read_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors of one safetensors file, with the file's size checked against what it promises.

    Args:
        file (`Path`): The file.

    Returns:
        `dict[str, StoredTensor]`: By name.

    Raises:
        LayerTracerError: It is missing, cut short or not in this format.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = stream.read(length) if 8 + length <= size and length <= _LONGEST_HEADER else b""
    except OSError as error:
        raise LayerTracerError(f"Could not read {file}: {error.strerror or error}.") from error
    if not header:
        raise LayerTracerError(f"{file} is cut short or is no safetensors file: its header is not there.")
    try:
        entries = json.loads(header)
        entries.pop("__metadata__", None)
        found = {name: _stored(name, entry, file, 8 + length) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LayerTracerError(f"{file} is corrupt: its header cannot be read ({error}).") from error
    end = max((tensor.offset + tensor.nbytes for tensor in found.values()), default=8 + length)
    if end != size:
        what = "is cut short" if size < end else "is corrupt"
        raise LayerTracerError(
            f"{file} {what}: it has {size:,} bytes and its header promises {end:,}. Fetch it again."
        )
    return found


def _stored(name: str, entry: dict, file: Path, start: int) -> StoredTensor:
    begin, end = entry["data_offsets"]
    if entry["dtype"] not in DTYPES:
        raise ValueError(f"{name} has the unknown data type {entry['dtype']}")
    dtype, shape = DTYPES[entry["dtype"]], tuple(entry["shape"])
    if end - begin != prod(shape) * dtype.itemsize or begin < 0:
        raise ValueError(f"{name} has {end - begin} bytes, which does not fit its shape {list(shape)}")
    return StoredTensor(name, dtype, shape, file, start + begin, end - begin)


@dataclass(frozen=True)
class NewTensor:
    """A tensor to be written: bytes copied from one that is stored, or made when its turn comes.

    Args:
        name (`str`): Its name in the new model.
        dtype (`torch.dtype`): Its data type.
        shape (`tuple[int, ...]`): Its shape.
        sources (`tuple[StoredTensor, ...]`): What it is made of; empty for what is drawn anew.
        make (`Callable`, *optional*): From the loaded sources to the tensor; without it, the only source is copied.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    sources: tuple[StoredTensor, ...] = ()
    make: Callable[..., Tensor] | None = field(default=None, repr=False)

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    @classmethod
    def copy(cls, name: str, source: StoredTensor, dtype: torch.dtype | None = None) -> NewTensor:
        """The same tensor under another name, in another data type where it is a floating-point one."""
        if dtype is None or dtype == source.dtype or not source.dtype.is_floating_point:
            return cls(name, source.dtype, source.shape, (source,))
        return cls(name, dtype, source.shape, (source,), lambda tensor: tensor.to(dtype))

    def write(self, file: BinaryIO) -> None:
        """Appends the tensor's bytes to a file."""
        if self.make is None:
            _copy(self.sources[0], file)
            return
        made = self.make(*(source.load() for source in self.sources))
        if tuple(made.shape) != self.shape or made.dtype != self.dtype:
            raise LayerTracerError(
                f"{self.name} came out as {tuple(made.shape)} {made.dtype}, not {self.shape} {self.dtype}."
            )
        if made.numel():
            _write(file, memoryview(made.contiguous().view(-1).view(torch.uint8).numpy()))


def split_into_files(tensors: Iterable[NewTensor], largest: int) -> list[list[NewTensor]]:
    """Fills files in order, each up to a size; a tensor that is larger has one for itself.

    Args:
        tensors (`Iterable[NewTensor]`): In the order of writing.
        largest (`int`): Bytes to a file.

    Returns:
        `list[list[NewTensor]]`: What each file holds.
    """
    files: list[list[NewTensor]] = []
    size = 0
    for tensor in tensors:
        if not files or (size and size + tensor.nbytes > largest):
            files.append([])
            size = 0
        files[-1].append(tensor)
        size += tensor.nbytes
    return files


def write_file(path: Path, tensors: list[NewTensor], lies_there: Callable[[StoredTensor], None] | None = None) -> None:
    """Writes one safetensors file.

    Args:
        path (`Path`): The file.
        tensors (`list[NewTensor]`): What it holds, in this order.
        lies_there (`Callable`, *optional*): Told of each tensor as soon as its bytes are in the file.
    """
    entries: dict[str, dict[str, Any]] = {"__metadata__": {"format": "pt"}}
    at = 0
    for tensor in tensors:
        offsets = [at, at + tensor.nbytes]
        entries[tensor.name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": offsets,
        }
        at = offsets[1]
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb", buffering=0) as file:
        _write(file, memoryview(len(header).to_bytes(8, "little") + header))
        for tensor in tensors:
            tensor.write(file)
            if lies_there is not None:
                lies_there(_stored(tensor.name, entries[tensor.name], path, 8 + len(header)))


def _copy(source: StoredTensor, file: BinaryIO) -> None:
    """Copies a stored tensor's bytes, inside the kernel where it can."""
    start, left = source.offset, source.nbytes
    if hasattr(os, "copy_file_range"):
        with source.file.open("rb", buffering=0) as stored:
            while left:
                try:
                    count = os.copy_file_range(stored.fileno(), file.fileno(), min(left, _COPIED_AT_ONCE), start)
                except OSError as error:
                    if error.errno not in _NO_KERNEL_COPY:
                        raise
                    break
                if not count:
                    raise source.shrunk()
                start, left = start + count, left - count
    if left:
        rest = replace(source, offset=start, nbytes=left)
        for chunk in rest.chunks():
            _write(file, chunk)


def _write(file: BinaryIO, data: memoryview) -> None:
    while data:
        data = data[file.write(data) :]


def write_index(path: Path, places: Mapping[str, str], total: int) -> None:
    """Writes the index of a model in several files.

    Args:
        path (`Path`): The index.
        places (`Mapping[str, str]`): File name by tensor name.
        total (`int`): Bytes of all tensors.
    """
    content = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
