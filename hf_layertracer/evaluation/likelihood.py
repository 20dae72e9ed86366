"""How well a model predicts blocks of text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ..errors import LayerTracerError
from ..modeling.preserve import preserved
from ..modeling.wrappers import input_device, unwrap
from .blocks import Block


_LOGITS_AT_ONCE = 1 << 27  # numbers: half a gigabyte in float32
_LEAST_FILLED = 0.75  # of a padded row
_LOOKED_AT = 128  # tokens
_APART = 1e-2  # of the largest logit: more than rounding does, in a router that groups tokens too


@dataclass(frozen=True)
class TextScore:
    """How well a model predicts a set of blocks.

    Args:
        nats (`np.ndarray`): Negative log-likelihood of each block, in nats, of shape `(blocks,)`.
        tokens (`int`): Tokens predicted.
        bytes (`np.ndarray`): Bytes of UTF-8 that each block stands for, of shape `(blocks,)`.
    """

    nats: np.ndarray
    tokens: int
    bytes: np.ndarray

    @property
    def bits_per_byte(self) -> float:
        """Bits that the model needs for a byte of the text: comparable between tokenizers."""
        return float(self.nats.sum() / self.bytes.sum()) / math.log(2)

    @property
    def block_bits_per_byte(self) -> np.ndarray:
        """Bits for a byte of each block; their mean, weighted by bytes, is that of the text."""
        return self.nats / np.maximum(self.bytes, 1) / math.log(2)

    @property
    def perplexity(self) -> float:
        """Exponential of the mean negative log-likelihood of a token: comparable between models with one tokenizer."""
        mean = float(self.nats.sum()) / self.tokens
        return math.exp(mean) if mean < 700 else math.inf


def score_blocks(model: nn.Module, blocks: Sequence[Block]) -> TextScore:
    """Computes the likelihood of blocks of text. The model is left as it was found.

    Args:
        model (`nn.Module`): A causal language model, wrapped or not.
        blocks (`Sequence[Block]`): The blocks.

    Returns:
        [`TextScore`]: Nats of each block, in the order of `blocks`, and their sums.

    Raises:
        LayerTracerError: A token lies outside the model's vocabulary, or the model looks ahead.
    """
    model = unwrap(model)
    embeddings = model.get_input_embeddings()
    vocabulary, device = embeddings.num_embeddings, input_device(model, embeddings)
    largest = max(max(block.input_ids) for block in blocks)
    if largest >= vocabulary:
        raise LayerTracerError(
            f"Token {largest} is outside the model's vocabulary of {vocabulary}. Is the tokenizer the model's own?"
        )
    nats = np.zeros(len(blocks))
    with preserved(model), torch.no_grad():
        _check_causal(model, max(blocks, key=lambda block: block.tokens), device)
        for batch in _similar_length_batches([block.tokens for block in blocks], _LOGITS_AT_ONCE // vocabulary):
            longest = blocks[batch[0]].tokens
            # Padding stands at the end, where nothing that is counted can see it: these models read from left to right.
            rows = [blocks[index].input_ids + (0,) * (longest - blocks[index].tokens) for index in batch]
            ids = torch.tensor(rows, device=device)
            # The last token is predicted, and predicts nothing that is counted.
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits
            for row, index in enumerate(batch):
                tokens = blocks[index].tokens
                targets = ids[row, 1 : tokens + 1].to(logits.device)
                loss = cross_entropy(logits[row, :tokens].float(), targets, reduction="none")
                nats[index] = float(loss.double().sum())
    return TextScore(nats, sum(block.tokens for block in blocks), np.array([block.bytes for block in blocks]))


def _check_causal(model: nn.Module, block: Block, device: torch.device) -> None:
    """Refuses a model that sees what it is to predict: its bits per byte would be low, and mean nothing."""
    ids = block.input_ids[:_LOOKED_AT]
    kept = len(ids) * 2 // 3
    changed = ids[:kept] + ids[kept - 1 : -1]
    if ids == changed:
        return
    one, other = (
        model(input_ids=torch.tensor([row], device=device), use_cache=False).logits[0, :kept].float()
        for row in (ids, changed)
    )
    if (one - other).abs().max() > _APART * one.abs().max():
        raise LayerTracerError(
            f"{type(model).__name__} is not a causal language model: later tokens change what it says of earlier ones."
        )


def _similar_length_batches(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Indices from the longest to the shortest, in batches of at most `tokens` with padding, of which there is little."""
    batch: list[int] = []
    for index in np.argsort(-np.asarray(lengths), kind="stable").tolist():
        longest = lengths[batch[0]] if batch else lengths[index]
        if batch and ((len(batch) + 1) * longest > tokens or lengths[index] < _LEAST_FILLED * longest):
            yield batch
            batch = []
        batch.append(index)
    yield batch
