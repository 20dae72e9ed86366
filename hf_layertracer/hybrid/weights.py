"""The tensors of a hybrid: which ones there are, and how they are written."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from io import FileIO
from pathlib import Path

from ..errors import LayerTracerError
from ..modeling import EMBEDDINGS, HEAD, NORM, OTHER
from .blueprint import Blueprint
from .donors import Donor
from .safetensors_io import (
    INDEX_FILE,
    SINGLE_FILE,
    NewTensor,
    StoredTensor,
    read_header,
    split_into_files,
    write_file,
    write_index,
)


def whole_tensors(plan: Blueprint) -> dict[int | str, list[NewTensor]]:
    """The tensors of a model whose layers are taken whole, by the part that they belong to.

    Args:
        plan ([`Blueprint`]): What is built.

    Returns:
        `dict[int | str, list[NewTensor]]`: By layer, or `"embeddings"`, `"norm"`, `"head"` or `"other"`.
    """
    dtype = plan.dtype if plan.recipe.dtype is not None else None
    prefix, base = plan.base.layers_prefix, plan.base
    groups: dict[int | str, list[NewTensor]] = {}
    for slot, donor in ((EMBEDDINGS, plan.embeddings), (NORM, plan.norm), (HEAD, plan.head), (OTHER, base)):
        stored = donor.outside(slot)
        groups[slot] = [NewTensor.copy(_as_in(base, donor, tensor.name), tensor, dtype) for tensor in stored]
    if not groups[HEAD] and plan.head.tied and not plan.config.tie_word_embeddings:
        groups[HEAD] = [NewTensor.copy(base.head_name(), plan.head.embedding_matrix(), dtype)]
    for index, (donor, layer) in enumerate(plan.stack):
        tensors = donor.layer_tensors(layer)
        groups[index] = [NewTensor.copy(f"{prefix}{index}.{name}", tensor, dtype) for name, tensor in tensors.items()]
    for number, tensors in base.extra_layers.items():
        shifted = number - base.parts.num_layers + len(plan.stack)
        groups[OTHER] += [
            NewTensor.copy(f"{prefix}{shifted}.{name}", tensor, dtype) for name, tensor in tensors.items()
        ]
    return groups


def in_order(groups: dict[int | str, list[NewTensor]]) -> list[NewTensor]:
    """The tensors in the order of the model: embeddings, layers, norm, head and the rest."""
    layers = sorted(key for key in groups if isinstance(key, int))
    keys: list[int | str] = [EMBEDDINGS, *layers, NORM, HEAD, OTHER]
    return [tensor for key in keys for tensor in groups.get(key, [])]


class Digests:
    """SHA-256 of the parts of a model, taken of what lies in its files, beside whatever else is done."""

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(1)
        self._of_tensor: dict[str, Future[bytes]] = {}

    @contextmanager
    def following(self, file: Path) -> Iterator[Callable[[StoredTensor], None]]:
        """Takes the tensors of a file in, also while it is written; it may be renamed as soon as it is whole.

        Args:
            file (`Path`): The file.

        Yields:
            `Callable`: To be called with each tensor once it lies there.
        """
        stream = os.fdopen(os.open(file, os.O_RDONLY | os.O_CREAT, 0o666), "rb", buffering=0)

        def add(tensor: StoredTensor) -> None:
            self._of_tensor[tensor.name] = self._worker.submit(_digest, stream, tensor)

        try:
            yield add
        finally:
            self._worker.submit(stream.close)  # the worker goes in order: behind the last tensor

    def of(self, names: Iterable[str]) -> str:
        """The digest of some tensors, in hexadecimal: that of each one's name and digest, sorted by name."""
        whole = hashlib.sha256()
        for name in sorted(names):
            whole.update(name.encode() + b"\0" + self._of_tensor[name].result())
        return whole.hexdigest()


def _digest(stream: FileIO, tensor: StoredTensor) -> bytes:
    digest = hashlib.sha256()
    for chunk in tensor.chunks(stream):
        digest.update(chunk)
    return digest.digest()


def write_tensors(
    folder: Path, tensors: Sequence[NewTensor], largest: int, digests: Digests | None = None
) -> dict[str, list[str]]:
    """Writes tensors into one or several files.

    Args:
        folder (`Path`): Where the files go.
        tensors (`Sequence[NewTensor]`): In the order of writing.
        largest (`int`): Bytes to a file.
        digests ([`Digests`], *optional*): Told of each tensor.

    Returns:
        `dict[str, list[str]]`: The names of the tensors in each file.
    """
    check_space(folder, sum(tensor.nbytes for tensor in tensors))
    written: dict[str, list[str]] = {}
    for content in split_into_files(tensors, largest):
        name = f"part-{sum(1 for _ in folder.glob('part-*')):05d}.safetensors"
        with nullcontext() if digests is None else digests.following(folder / name) as lies_there:
            write_file(folder / name, content, lies_there)
        written[name] = [tensor.name for tensor in content]
    return written


def name_files(folder: Path, written: dict[str, list[str]]) -> None:
    """Gives written files the names that `from_pretrained` looks for, with an index if there are several.

    Args:
        folder (`Path`): Where the files are.
        written (`dict[str, list[str]]`): The names of the tensors in each file.
    """
    places: dict[str, str] = {}
    for number, (file, tensors) in enumerate(written.items(), 1):
        name = SINGLE_FILE if len(written) == 1 else f"model-{number:05d}-of-{len(written):05d}.safetensors"
        (folder / file).rename(folder / name)
        places.update(dict.fromkeys(tensors, name))
    if len(written) > 1:
        headers = [read_header(folder / name) for name in dict.fromkeys(places.values())]
        write_index(
            folder / INDEX_FILE, places, sum(tensor.nbytes for header in headers for tensor in header.values())
        )


def check_space(folder: Path, needed: int) -> None:
    """Refuses to begin what cannot end, where the disk says how full it is."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise LayerTracerError(
            f"The hybrid needs {needed / 1e9:.1f} GB at {folder.parent} and {free / 1e9:.1f} GB are free."
        )


def _as_in(base: Donor, donor: Donor, name: str) -> str:
    """A donor's tensor outside the layers under the name that the base's files would give it."""
    if base is donor or name in base.files:
        return name
    ours, theirs = base.layers_prefix, donor.layers_prefix
    if ours.endswith(theirs):
        return ours.removesuffix(theirs) + name
    extra = theirs.removesuffix(ours)
    return name.removeprefix(extra) if theirs.endswith(ours) else name
