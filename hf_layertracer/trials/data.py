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
from ..evaluation.blocks import start_token
from ..files import write_atomically


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def write_blocks(
    files: Iterable[str], tokenizer: PreTrainedTokenizerBase, length: int, target: Path, place: str = "train.files"
) -> int:
    """Cuts documents into blocks of equal length and writes them to a file.

    Each block begins as a text does in the evaluation, with the token that [`start_token`] names, and so does each
    document within a block: short ones share a block, and but for the last block nothing is left out.

    Args:
        files (`Iterable[str]`): Text files.
        tokenizer (`PreTrainedTokenizerBase`): The model's tokenizer.
        length (`int`): Tokens of a block.
        target (`Path`): An `.npy` file, which is whole or not there.
        place (`str`, *optional*, defaults to `"train.files"`): Where the config names the files.

    Returns:
        `int`: How many blocks there are.

    Raises:
        LayerTracerError:
            A file cannot be read, there is not enough text for one block, the tokenizer has no token to begin with, or the
            disk is full.
    """
    files, begins = list(files), start_token(tokenizer)
    parts = [
        np.asarray(
            [begins, *tokenizer(document, add_special_tokens=False, verbose=False)["input_ids"]], dtype=np.int32
        )
        for path in files
        for document in read_documents(path)
    ]
    # The first document begins with the first block's own token.
    ids = np.concatenate(parts)[1:] if parts else np.zeros(0, np.int32)
    count = len(ids) // (length - 1)
    if not count:
        raise LayerTracerError(f"{place}: {', '.join(files)} has fewer than the {length} tokens of one block.")
    blocks = np.insert(ids[: count * (length - 1)].reshape(count, length - 1), 0, begins, axis=1)
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
