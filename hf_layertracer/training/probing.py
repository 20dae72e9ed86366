"""What a traced run is diagnosed with: probes that are given, drawn from the run's data, or those of the package."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset
from transformers import PreTrainedTokenizerBase, ProcessorMixin
from transformers.utils import is_datasets_available

from ..errors import LayerTracerError
from ..logs import get_logger
from ..planning.config import LayerTracerConfig
from ..probes import Probe, as_probes, builtin_probes, load_probes


logger = get_logger(__name__)

Collator = Callable[[list[Any]], Any]


class NoProbesError(LayerTracerError):
    """Neither the data nor the package has probes for this model."""


def tokenizer_of(processing_class: Any) -> PreTrainedTokenizerBase | None:
    """The tokenizer among what a trainer may process its data with.

    Args:
        processing_class (`Any`): A tokenizer, a processor with one, an image processor, a feature extractor or nothing.

    Returns:
        `PreTrainedTokenizerBase`: The tokenizer, or `None` where there is none.
    """
    inner = getattr(processing_class, "tokenizer", None) if isinstance(processing_class, ProcessorMixin) else None
    found = inner or processing_class
    return found if isinstance(found, PreTrainedTokenizerBase) else None


def has_rows(dataset: Any) -> bool:
    """Whether there is something to draw from: a dataset, or a dictionary with one, that is not known to be empty."""
    if isinstance(dataset, dict):
        return any(has_rows(one) for one in dataset.values())
    return dataset is not None and not (hasattr(dataset, "__len__") and len(dataset) == 0)


def choose_probes(
    config: LayerTracerConfig,
    given: Sequence[Probe] | None,
    tokenizer: PreTrainedTokenizerBase | None,
    rows: Sequence[Any],
    collator: Collator | None,
    longest: int | None,
) -> list[Probe]:
    """The probes of a run: those that are given come first, then those of the settings, of the data, of the package.

    Args:
        config ([`LayerTracerConfig`]): The settings.
        given (`Sequence[Probe]`, *optional*): Probes that are given.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): The model's tokenizer.
        rows (`Sequence[Any]`): Rows of the data; none where there are no data.
        collator (`Callable`, *optional*): Turns rows into `input_ids` where they hold none.
        longest (`int`, *optional*): The longest prompt that the model takes, in tokens.

    Returns:
        `list[Probe]`: The probes.

    Raises:
        NoProbesError: There are none.
        LayerTracerError: The file that the settings name cannot be used.
    """
    if given is not None:
        return as_probes(given, tokenizer=tokenizer, seed=config.diagnosis_seed)
    if config.probes is not None:
        return load_probes(
            config.probes, tokenizer=tokenizer, max_probes=config.num_probes, seed=config.diagnosis_seed
        )
    reason = "There are no data to draw probes from"
    if rows:
        try:
            return probes_of_rows(rows, collator, tokenizer, config.diagnosis_seed, longest)
        except LayerTracerError as error:
            reason = f"No probes could be drawn from the data ({error})"
    if tokenizer is None:
        raise NoProbesError(
            f"{reason}, and the probes of the package are text, which needs a tokenizer: pass probes=... or "
            "processing_class=tokenizer."
        )
    logger.info(f"{reason}: the probes of the package are used.")
    return builtin_probes()


def probes_of_rows(
    rows: Sequence[Any],
    collator: Collator | None,
    tokenizer: PreTrainedTokenizerBase | None,
    seed: int,
    longest: int | None = None,
) -> list[Probe]:
    """Makes probes of rows as a trainer gets them: text, token ids or whatever the collator understands.

    Args:
        rows (`Sequence[Any]`): The rows.
        collator (`Callable`, *optional*): The data collator.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): Needed for text.
        seed (`int`): Seed of the cuts.
        longest (`int`, *optional*): The longest prompt that the model takes, in tokens.

    Returns:
        `list[Probe]`: The probes.

    Raises:
        LayerTracerError: The rows hold neither text nor token ids, also after the collator.
    """
    limit = {} if longest is None else {"max_prompt_tokens": min(longest, 64)}
    try:
        return load_probes(rows, tokenizer=tokenizer, seed=seed, **limit)
    except LayerTracerError:
        if collator is None:
            raise
    try:
        batches = [collator([row]) for row in rows]
        collated = [{name: values[0] for name, values in batch.items()} for batch in batches]
    except Exception as error:  # a collator is the user's code: whatever it raises, other probes will do
        raise LayerTracerError(f"the data collator failed on a single row: {error!s:.120}") from error
    return load_probes(collated, seed=seed, **limit)


def take_rows(dataset: Any, count: int, seed: int) -> tuple[list[Any], Any]:
    """Takes some rows out of a dataset to look at.

    A stream that can be read once only is given back as one that begins with the rows that were taken.

    Args:
        dataset (`Any`): A dataset with a length, a stream, or a dictionary of datasets, whose first one is used.
        count (`int`): How many rows to take.
        seed (`int`): Seed of the draw, where rows can be drawn.

    Returns:
        `tuple[list[Any], Any]`: The rows, and the dataset to go on with. Rows that cannot be read are no rows.
    """
    if isinstance(dataset, dict):
        first = next((one for one in dataset.values() if has_rows(one)), None)
        return take_rows(first, count, seed)[0], dataset
    if not has_rows(dataset):
        return [], dataset
    try:
        if hasattr(dataset, "__len__") and not isinstance(dataset, IterableDataset):
            size = len(dataset)
            chosen = sorted(np.random.default_rng(seed).choice(size, min(count, size), replace=False).tolist())
            return [dataset[index] for index in chosen], dataset
        return _take_from_stream(dataset, count)
    except Exception as error:  # a dataset is the user's code, and training will say what is wrong with it
        logger.warning(f"No rows of the data could be read ({type(error).__name__}: {error!s:.120}).")
        return [], dataset


def sample_rows(dataset: Any, count: int = 64) -> list[Any]:
    """A few rows of a dataset that can be read anywhere; of a stream, none.

    Args:
        dataset (`Any`): The dataset.
        count (`int`, *optional*, defaults to `64`): How many.

    Returns:
        `list[Any]`: The rows.
    """
    if not hasattr(dataset, "__len__") or isinstance(dataset, IterableDataset):
        return []
    return take_rows(dataset, count, seed=0)[0]


def can_be_read_again(dataset: Any) -> bool:
    """Whether reading rows leaves a dataset as it was: of a stream, only those of `datasets` surely begin anew.

    Args:
        dataset (`Any`): The dataset.

    Returns:
        `bool`: Whether it does.
    """
    return not isinstance(dataset, IterableDataset) or _is_of_datasets(dataset)


def _is_of_datasets(dataset: Any) -> bool:
    if not is_datasets_available():
        return False
    import datasets

    return isinstance(dataset, datasets.IterableDataset)


def _take_from_stream(dataset: Any, count: int) -> tuple[list[Any], Any]:
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    stream = iter(dataset)
    rows = list(islice(stream, count))
    if can_be_read_again(dataset) or not rows:
        return rows, dataset
    # A stream that draws what it yields must draw the same again.
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    again = iter(dataset)
    following = list(islice(again, 1))
    if again is not stream and following and _alike(following[0], rows[0]):
        return rows, dataset
    once = _SizedOnce if hasattr(dataset, "__len__") else _Once
    return rows, once(dataset, chain(rows, following, again))


class _Once(IterableDataset):
    """A stream that was read from already, from its beginning."""

    def __init__(self, dataset: IterableDataset, whole: Iterator[Any]):
        self.dataset, self._whole = dataset, whole

    def __iter__(self) -> Iterator[Any]:
        # Later epochs get from the stream itself whatever it has left, as without us.
        whole, self._whole = self._whole, None
        return whole if whole is not None else iter(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name in ("dataset", "_whole"):  # not there yet, as in a copy that is being made
            raise AttributeError(name)
        return getattr(self.dataset, name)


class _SizedOnce(_Once):
    def __len__(self) -> int:
        return len(self.dataset)


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[name], other[name]) for name in one)
    if isinstance(one, torch.Tensor | np.ndarray):
        return type(one) is type(other) and one.shape == other.shape and bool((one == other).all())
    return bool(one == other)
