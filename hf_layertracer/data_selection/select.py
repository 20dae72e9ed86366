"""Keeps the best part of a corpus: scores every piece, then writes those that are worth training on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from ..errors import LayerTracerError
from ..files import check_writable, write_atomically
from ..modeling import context_length
from ..modeling.loading import load_model
from ..progress import progress_bar
from .choose import choose
from .config import SelectionConfig
from .scoring import CHUNK, Losses, check_unchanged, join_chunks, load_chunks, piece_losses, save_chunk
from .sources import stream_pieces


if TYPE_CHECKING:
    from datasets import IterableDataset

SELECTED, RECORD, _SCORING, _CHUNKS = "selected.jsonl", "selection.json", "scoring.json", "losses"


class SelectionRecord(BaseModel):
    """What was kept of a corpus, and why.

    Args:
        sources (`list[str]`): The corpus.
        model (`str`): The model.
        reference (`str` or `None`): The reference model.
        settings (`dict[str, Any]`): The fields of [`SelectionConfig`].
        pieces (`int`): How many pieces there were.
        bytes (`int`): How many bytes of text.
        kept_pieces (`int`): How many pieces were kept.
        kept_bytes (`int`): How many bytes of text were kept.
        mean_score (`float`): Mean score of all pieces: excess bits per byte, or nats per token.
        kept_mean_score (`float`): Mean score of those that were kept.
        versions (`dict[str, str]`): Versions of libraries.
    """

    sources: list[str]
    model: str
    reference: str | None
    settings: dict[str, Any]
    pieces: int
    bytes: int
    kept_pieces: int
    kept_bytes: int
    mean_score: float
    kept_mean_score: float
    versions: dict[str, str]


def select_data(
    sources: list[str],
    out: str | Path,
    *,
    model: str,
    reference: str | None = None,
    config: SelectionConfig | None = None,
    dtype: str = "auto",
    trust_remote_code: bool = False,
) -> SelectionRecord:
    """Keeps the best fraction of a corpus by what models need for it.

    The corpus is streamed twice, once to score it and once to write `selected.jsonl`, one piece a line with its `text`,
    `score` and `index`. Scores are saved as they are made: the same call in the same folder goes on after an
    interruption, and with another fraction or band it does not score again.

    Args:
        sources (`list[str]`): Files (`.txt`, `.jsonl`, `.parquet`, `.csv`, `.arrow`) and ids of datasets on the Hub.
        out (`str` or `Path`): Folder for the result.
        model (`str`): Hub id or folder of the model that is to be trained.
        reference (`str`, *optional*): Hub id or folder of the reference model, for `excess-loss`.
        config ([`SelectionConfig`], *optional*): What to keep.
        dtype (`str`, *optional*, defaults to `"auto"`): Data type of the weights.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Run code that comes with the models.

    Returns:
        [`SelectionRecord`]: What was kept.

    Raises:
        LayerTracerError: The corpus or a model cannot be used, or the folder holds scores of other settings.

    Example:

    ```python
    from hf_layertracer.data_selection import select_data

    record = select_data(["web.jsonl"], "selected", model="base", reference="trained-on-textbooks")
    ```
    """
    config, out = config or SelectionConfig(), Path(out)
    if config.score == "excess-loss" and reference is None:
        raise LayerTracerError("excess-loss compares with a reference model: name one, or choose perplexity-band.")
    if config.score == "perplexity-band" and reference is not None:
        raise LayerTracerError("perplexity-band takes no reference model: leave it out, or choose excess-loss.")
    models = {"model": model} if reference is None else {"model": model, "reference": reference}
    check_writable(out)
    _claim(out, sources, models, config, dtype)
    stream = stream_pieces(sources, config.max_characters)
    _score(stream, out / _CHUNKS, models, config, {"dtype": dtype, "trust_remote_code": trust_remote_code})
    chunks = load_chunks(out / _CHUNKS)
    if not chunks:
        raise LayerTracerError(f"There is no text to select from in {', '.join(sources)}.")
    losses = join_chunks(chunks)
    scores = piece_scores(losses)
    kept = choose(scores, losses.bytes, config)
    write_atomically(out / SELECTED, _selected_lines(stream, chunks, scores, kept))
    record = SelectionRecord(
        sources=sources,
        model=model,
        reference=reference,
        settings=vars(config),
        pieces=len(scores),
        bytes=int(losses.bytes.sum()),
        kept_pieces=int(kept.sum()),
        kept_bytes=int(losses.bytes[kept].sum()),
        mean_score=float(scores.mean()),
        kept_mean_score=float(scores[kept].mean()),
        versions={name: version(name) for name in ("hf_layertracer", "torch", "transformers", "datasets")},
    )
    write_atomically(out / RECORD, (record.model_dump_json(indent=1) + "\n").encode())
    return record


def piece_scores(losses: Losses) -> NDArray[np.float64]:
    """The score of each piece.

    Args:
        losses ([`Losses`]): What the models need for the pieces.

    Returns:
        `NDArray[np.float64]`: With a reference, bits per byte beyond it, which does not depend on the tokenizers;
            without, nats per token, the logarithm of the perplexity. Of shape `(pieces,)`.
    """
    if losses.reference is not None:
        return (losses.model - losses.reference) / losses.bytes / math.log(2)
    return losses.model / losses.tokens


def _claim(out: Path, sources: list[str], models: dict[str, str], config: SelectionConfig, dtype: str) -> None:
    """Notes what the scores in a folder depend on; refuses a folder with others."""
    settings = {
        "sources": sources,
        **models,
        "dtype": dtype,
        "max_characters": config.max_characters,
        "sequence_length": config.sequence_length,
        "weights": {name: _newest_weights(place) for name, place in models.items()},
    }
    path = out / _SCORING
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        write_atomically(path, (json.dumps(settings, indent=1) + "\n").encode())
        return
    except (OSError, ValueError) as error:
        raise LayerTracerError(f"Could not read {path}: {error}.") from error
    changed = sorted(name for name in {*before, *settings} if before.get(name) != settings.get(name))
    if changed:
        raise LayerTracerError(f"{out} holds scores of another {changed[0]}: choose another folder.")


def _newest_weights(place: str) -> int | None:
    """When the weights in a local folder were last written, as their name alone does not tell."""
    return max((file.stat().st_mtime_ns for file in Path(place).glob("*.safetensors")), default=None)


def _score(
    stream: IterableDataset, folder: Path, models: dict[str, str], config: SelectionConfig, loading: dict[str, Any]
) -> None:
    chunks = load_chunks(folder)
    if chunks and len(chunks[-1]["bytes"]) < CHUNK:
        return  # only the last chunk of a corpus is smaller
    loaded, length = None, config.sequence_length
    with progress_bar("Scoring", unit="pieces", initial=len(chunks) * CHUNK) as bar:
        remaining = stream.skip(len(chunks) * CHUNK).iter(batch_size=CHUNK)
        for number, batch in enumerate(remaining, start=len(chunks)):
            if loaded is None:
                loaded = {name: load_model(place, **loading) for name, place in models.items()}
                # Beyond its context a model knows no positions; and models that are compared read alike.
                contexts = [context_length(model) for model, _ in loaded.values()]
                length = min([length, *(limit for limit in contexts if limit is not None)])
            pieces, values = batch["text"], {}
            for name, (model, tokenizer) in loaded.items():
                nats, tokens = piece_losses(model, tokenizer, pieces, length)
                values[name] = nats.tolist()
                values.setdefault("tokens", tokens.tolist())
            save_chunk(folder, number, pieces, values)
            bar.update(len(pieces))


def _selected_lines(
    stream: IterableDataset, chunks: list[dict[str, Any]], scores: NDArray[np.float64], kept: NDArray[np.bool_]
) -> Iterator[bytes]:
    read = 0
    for number, batch in enumerate(stream.iter(batch_size=CHUNK)):
        pieces = batch["text"]
        check_unchanged(number, pieces, chunks[number] if number < len(chunks) else None)
        for index, piece in enumerate(pieces, start=read):
            if kept[index]:
                row = {"text": piece, "score": float(scores[index]), "index": index}
                yield (json.dumps(row, ensure_ascii=False) + "\n").encode()
        read += len(pieces)
    if read < len(scores):
        check_unchanged(read // CHUNK, [], chunks[read // CHUNK])
