"""Training data: the documents of text files as blocks of tokens."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ..documents import read_documents
from ..errors import LayerTracerError
from ..files import write_atomically


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def write_blocks(
    files: Iterable[str], tokenizer: PreTrainedTokenizerBase, length: int, target: Path, place: str = "train.files"
) -> int:
    """Cuts documents into blocks of equal length, none of which crosses a document's end, and writes them to a file.

    Args:
        files (`Iterable[str]`): Text files.
        tokenizer (`PreTrainedTokenizerBase`): The model's tokenizer.
        length (`int`): Tokens of a block.
        target (`Path`): An `.npy` file, which is whole or not there.
        place (`str`, *optional*, defaults to `"train.files"`): Where the config names the files.

    Returns:
        `int`: How many blocks there are.

    Raises:
        LayerTracerError: A file cannot be read, there is no block, or the disk is full.
    """
    files = list(files)
    parts = []
    for path in files:
        for document in read_documents(path):
            ids = np.asarray(tokenizer(document, add_special_tokens=False, verbose=False)["input_ids"], dtype=np.int32)
            parts.append(ids[: len(ids) - len(ids) % length].reshape(-1, length))
    blocks = np.concatenate(parts) if parts else np.zeros((0, length), np.int32)
    if not len(blocks):
        raise LayerTracerError(f"{place}: no document of {', '.join(files)} has the {length} tokens of one block.")
    buffer = io.BytesIO()
    np.save(buffer, blocks)
    write_atomically(target, buffer.getvalue())
    return len(blocks)


class Blocks(Dataset):
    """A seeded sample of blocks in a seeded order, the same for every arm; short data is read again from the start.

    Args:
        path (`Path`): The `.npy` file.
        count (`int`): How many blocks a run takes.
        seed (`int`): Seed of sample and order.
    """

    def __init__(self, path: Path, count: int, seed: int):
        self._blocks = np.load(path, mmap_mode="r")
        random = np.random.default_rng(seed)
        passes = -(-count // len(self._blocks))
        self._order = np.concatenate([random.permutation(len(self._blocks)) for _ in range(passes)])[:count]

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids = torch.from_numpy(self._blocks[self._order[index]].astype(np.int64))
        return {"input_ids": ids, "labels": ids.clone(), "attention_mask": torch.ones_like(ids)}


def count_blocks(path: Path) -> int:
    """How many blocks a file holds."""
    return len(np.load(path, mmap_mode="r"))
