"""Evaluates one model: what it learned, what it forgot, what it knows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..documents import read_documents
from ..errors import LayerTracerError
from ..probes import load_probes
from ..probes.builtin import BUILTIN
from .config import EvaluationConfig
from .result import EvaluationItem, EvaluationResult


if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase


def evaluate_model(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, config: EvaluationConfig | None = None
) -> EvaluationResult:
    """Evaluates a model that is in memory, and leaves it as it was found.

    Args:
        model (`nn.Module`): A causal language model, wrapped or not.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer.
        config ([`EvaluationConfig`], *optional*): What to evaluate; the probes of the package by default.

    Returns:
        [`EvaluationResult`]: The metrics, and the items that they come from.

    Raises:
        LayerTracerError: A file, a probe or a task cannot be used, or an extra is not installed.

    Example:

    ```python
    from hf_layertracer.evaluation import EvaluationConfig, evaluate_model

    result = evaluate_model(model, tokenizer, EvaluationConfig(new=["law.txt"], old=["news.txt"], limit=100))
    print(result.metrics["new/bits_per_byte"])
    ```
    """
    config = config or EvaluationConfig()
    check_evaluation(config)
    result = EvaluationResult()
    for name, files in (("new", config.new), ("old", config.old)):
        if files:
            _add_texts(result, name, files, model, tokenizer, config)
    if config.probes is not None:
        _add_probes(result, config.probes, model, tokenizer)
    if config.tasks:
        _add_tasks(result, model, tokenizer, config)
    return result


def check_evaluation(config: EvaluationConfig) -> None:
    """Finds what is wrong with an evaluation before hours of training: missing files, empty sets, unknown tasks.

    Args:
        config ([`EvaluationConfig`]): What is to be evaluated.

    Raises:
        LayerTracerError: There is nothing to evaluate, or something that is named is not there.
    """
    if not (config.new or config.old or config.tasks or config.probes is not None):
        raise LayerTracerError("There is nothing to evaluate: name texts (new, old), probes or tasks.")
    for path in [*config.new, *config.old]:
        if not Path(path).is_file():
            raise LayerTracerError(f"There is no text file {path} to evaluate on.")
        if next(read_documents(path), None) is None:
            raise LayerTracerError(f"There is no text to evaluate on in {path}.")
    if config.probes is not None and config.probes not in BUILTIN and not Path(config.probes).exists():
        raise LayerTracerError(f"There are no probes {config.probes}: name a file, or {' or '.join(BUILTIN)}.")
    if config.tasks:
        from .harness import check_tasks

        check_tasks(config)


def _add_texts(result: EvaluationResult, name: str, files: list[str], model, tokenizer, config) -> None:
    from ..modeling import context_length
    from ..modeling.wrappers import unwrap
    from .blocks import text_blocks
    from .likelihood import score_blocks

    limit = context_length(unwrap(model))
    length = config.sequence_length if limit is None else min(config.sequence_length, limit)
    blocks = text_blocks(files, tokenizer, length, config.limit)
    score = score_blocks(model, blocks)
    result.metrics[f"{name}/bits_per_byte"] = score.bits_per_byte
    result.metrics[f"{name}/perplexity"] = score.perplexity
    result.n[f"{name}/bits_per_byte"] = result.n[f"{name}/perplexity"] = len(blocks)
    protocol = f"blocks of {length} tokens, each read alone after the token that begins a text"
    result.protocols[name] = f"{protocol}, {_origin(len({block.group for block in blocks}))}"
    result.items += [
        EvaluationItem(
            set=name, item=block.item, group=block.group, value=value, bytes=block.bytes, tokens=block.tokens
        )
        for block, value in zip(blocks, score.block_bits_per_byte.tolist(), strict=True)
    ]


def _origin(documents: int) -> str:
    """What the errors of a text set rest on: blocks of one document resemble each other."""
    if documents == 1:
        return (
            "all from one document: they are taken to be independent, so that the error of the items may be too small; "
            "texts with a document a line (.jsonl) show how documents differ"
        )
    return f"from {documents} documents, each of which counts once in the error of the items"


def _add_probes(result: EvaluationResult, source: str, model, tokenizer) -> None:
    from ..diagnosis.score import score_probes

    probes = load_probes(source, tokenizer=tokenizer)
    scores = score_probes(model, probes, tokenizer)
    result.metrics["probes/accuracy"] = scores.accuracy
    result.metrics["probes/mean_log_probability"] = scores.mean_log_probability
    result.n["probes/accuracy"] = result.n["probes/mean_log_probability"] = len(probes)
    result.protocols["probes"] = "first token of the target, out of the whole vocabulary"
    result.items += [
        EvaluationItem(set="probes", item=str(number), group=probe.task, correct=correct, value=value)
        for number, (probe, correct, value) in enumerate(
            zip(probes, scores.correct, scores.log_probabilities, strict=True)
        )
    ]


def _add_tasks(result: EvaluationResult, model, tokenizer, config: EvaluationConfig) -> None:
    from ..modeling.preserve import preserved
    from ..modeling.wrappers import unwrap
    from .harness import add_tasks

    model = unwrap(model)
    with preserved(model):
        add_tasks(result, model, tokenizer, config)
