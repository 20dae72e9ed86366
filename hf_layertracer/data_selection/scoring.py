"""What a model needs for pieces of text, kept on disk so that hours of it survive an interruption."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import LayerTracerError
from ..evaluation.blocks import document_blocks
from ..evaluation.likelihood import score_blocks
from ..files import write_atomically


if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

CHUNK = 64  # pieces that are scored and saved together


@dataclass(frozen=True)
class Losses:
    """What models need for the pieces of a corpus.

    Args:
        bytes (`NDArray[np.int64]`): Bytes of each piece, of shape `(pieces,)`.
        tokens (`NDArray[np.int64]`): Tokens of the model for each piece, of shape `(pieces,)`.
        model (`NDArray[np.float64]`): Negative log-likelihood of each piece in nats, of shape `(pieces,)`.
        reference (`NDArray[np.float64]` or `None`): The same of the reference model.
    """

    bytes: NDArray[np.int64]
    tokens: NDArray[np.int64]
    model: NDArray[np.float64]
    reference: NDArray[np.float64] | None


def piece_losses(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, pieces: Sequence[str], length: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Negative log-likelihood of each piece.

    Args:
        model (`nn.Module`): A causal language model.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer.
        pieces (`Sequence[str]`): The texts.
        length (`int`): Most tokens that are read at once.

    Returns:
        `tuple[NDArray[np.float64], NDArray[np.int64]]`: Nats and tokens of each piece, of shape `(pieces,)`.
    """
    cut = [list(document_blocks(piece, tokenizer, length)) for piece in pieces]
    owners = [index for index, blocks in enumerate(cut) for _ in blocks]
    blocks = [block for blocks in cut for block in blocks]
    nats = np.bincount(owners, score_blocks(model, blocks).nats, minlength=len(pieces))
    tokens = np.bincount(owners, [block.tokens for block in blocks], minlength=len(pieces))
    return nats.astype(np.float64), tokens.astype(np.int64)


def save_chunk(folder: Path, number: int, pieces: Sequence[str], values: dict[str, Any]) -> None:
    """Writes the losses of some pieces to a file that is whole or not there.

    Args:
        folder (`Path`): Folder of the chunks.
        number (`int`): Which one, from 0.
        pieces (`Sequence[str]`): The pieces, of which a hash is kept.
        values (`dict[str, Any]`): Lists of one number a piece.
    """
    content = {"hash": chunk_hash(pieces), "bytes": [len(piece.encode()) for piece in pieces], **values}
    write_atomically(folder / f"{number:08d}.json", json.dumps(content).encode())


def load_chunks(folder: Path) -> list[dict[str, Any]]:
    """The chunks that were saved, up to the first one that is missing.

    Args:
        folder (`Path`): Folder of the chunks.

    Returns:
        `list[dict[str, Any]]`: What [`save_chunk`] wrote, in order.
    """
    chunks: list[dict[str, Any]] = []
    while (path := folder / f"{len(chunks):08d}.json").is_file():
        chunks.append(json.loads(path.read_text(encoding="utf-8")))
    return chunks


def join_chunks(chunks: Sequence[dict[str, Any]]) -> Losses:
    """All chunks, of which there is at least one, as arrays."""

    def joined(name: str, kind: type) -> NDArray:
        return np.array([value for chunk in chunks for value in chunk[name]], dtype=kind)

    reference = joined("reference", np.float64) if "reference" in chunks[0] else None
    return Losses(joined("bytes", np.int64), joined("tokens", np.int64), joined("model", np.float64), reference)


def chunk_hash(pieces: Sequence[str]) -> str:
    """SHA-256 of some pieces, in order."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(f"{len(piece)}:{piece}".encode())
    return digest.hexdigest()


def check_unchanged(number: int, pieces: Sequence[str], chunk: dict[str, Any] | None) -> None:
    """Refuses pieces that are not those that were scored.

    Args:
        number (`int`): Which chunk.
        pieces (`Sequence[str]`): The pieces, as they are read now.
        chunk (`dict[str, Any]` or `None`): What was saved; `None` where there were no such pieces.

    Raises:
        LayerTracerError: The corpus has changed.
    """
    if chunk is None or chunk_hash(pieces) != chunk["hash"]:
        raise LayerTracerError(
            f"The corpus has changed since its pieces {number * CHUNK} and on were scored: choose another folder."
        )
