"""How well a model predicts blocks of text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ..errors import LayerTracerError
from ..modeling.preserve import preserved
from ..modeling.wrappers import input_device, unwrap
from ..probes.encoding import equal_length_batches
from .blocks import Block


_LOGITS_AT_ONCE = 1 << 27  # numbers: half a gigabyte in float32


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
        LayerTracerError: A token lies outside the model's vocabulary.
    """
    model = unwrap(model)
    embeddings = model.get_input_embeddings()
    vocabulary, device = embeddings.num_embeddings, input_device(model, embeddings)
    largest = max(max(block.input_ids) for block in blocks)
    if largest >= vocabulary:
        raise LayerTracerError(
            f"Token {largest} is outside the model's vocabulary of {vocabulary}. Is the tokenizer the model's own?"
        )
    longest = max(block.tokens for block in blocks)
    batch_size = max(1, _LOGITS_AT_ONCE // (longest * vocabulary))
    nats = np.zeros(len(blocks))
    with preserved(model), torch.no_grad():
        for batch in equal_length_batches([len(block.input_ids) for block in blocks], batch_size):
            ids = torch.tensor([blocks[index].input_ids for index in batch], device=device)
            # The last token is predicted, and predicts nothing that is counted.
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits
            for row, index in enumerate(batch):
                loss = cross_entropy(logits[row].float(), ids[row, 1:].to(logits.device), reduction="none")
                nats[index] = float(loss.double().sum())
    return TextScore(nats, sum(block.tokens for block in blocks), np.array([block.bytes for block in blocks]))
