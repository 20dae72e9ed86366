"""Which pieces are the best part of a corpus, given what the models need for each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .config import SelectionConfig


def choose(scores: NDArray[np.float64], sizes: NDArray[np.int64], config: SelectionConfig) -> NDArray[np.bool_]:
    """Keeps the best pieces until their bytes make up the fraction.

    With `excess-loss`, the highest scores are the best. With `perplexity-band`, these are the lowest, the highest, or
    those nearest to the middle of the corpus, where ranks count bytes. Of equal scores, the earlier piece goes first.

    Args:
        scores (`NDArray[np.float64]`): One score a piece, of shape `(pieces,)`.
        sizes (`NDArray[np.int64]`): Bytes of each piece, of shape `(pieces,)`.
        config ([`SelectionConfig`]): What to keep.

    Returns:
        `NDArray[np.bool_]`: Whether each piece is kept; at least one is. The bytes kept are the fraction to within half of
            the piece at the edge.
    """
    if config.score == "excess-loss" or config.band == "high":
        order = np.argsort(-scores, kind="stable")
    elif config.band == "low":
        order = np.argsort(scores, kind="stable")
    else:
        ascending = np.argsort(scores, kind="stable")
        middles = np.cumsum(sizes[ascending]) - sizes[ascending] / 2
        order = ascending[np.argsort(np.abs(middles - sizes.sum() / 2), kind="stable")]
    middles = np.cumsum(sizes[order]) - sizes[order] / 2
    count = max(1, int(np.searchsorted(middles, config.fraction * sizes.sum())))
    kept = np.zeros(len(scores), dtype=bool)
    kept[order[:count]] = True
    return kept
