"""How well a model answers probes: what it knows, apart from where in its depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import LayerTracerError
from ..modeling import context_length, find_parts
from ..modeling.preserve import preserved
from ..probes import Probe
from ..probes.encoding import EncodedProbe, encode_probes, equal_length_batches
from .layer_stack import LayerStack


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BATCH_SIZE = 32


@dataclass(frozen=True)
class ProbeScores:
    """A model's answers.

    Args:
        accuracy (`float`): Fraction of probes whose target is the likeliest next token.
        mean_log_probability (`float`): Mean natural logarithm of the targets' probabilities.
        correct (`tuple[bool, ...]`): For each probe, whether its target is the likeliest next token.
        log_probabilities (`tuple[float, ...]`): For each probe, the natural logarithm of its target's probability.
    """

    accuracy: float
    mean_log_probability: float
    correct: tuple[bool, ...]
    log_probabilities: tuple[float, ...]


def score_probes(
    model: nn.Module, probes: Sequence[Probe], tokenizer: PreTrainedTokenizerBase | None = None
) -> ProbeScores:
    """Asks a model probes, without looking into its layers. The model is left as it was found.

    Args:
        model (`nn.Module`): A causal language model, wrapped or not.
        probes (`Sequence[Probe]`): The probes.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): Needed unless the probes are token ids.

    Returns:
        [`ProbeScores`]: Accuracy and mean log-probability.

    Raises:
        LayerTracerError: The probes cannot be used with this model.
    """
    parts = find_parts(model)
    encoded = encode_probes(probes, tokenizer, context_length(parts.model))
    stack = LayerStack(parts)
    check_prompts(stack, encoded)
    log_probability, correct = np.zeros(len(encoded)), np.zeros(len(encoded), dtype=bool)
    with preserved(parts.model), torch.no_grad():
        for batch in equal_length_batches([len(probe.input_ids) for probe in encoded], _BATCH_SIZE):
            ids = torch.tensor([encoded[index].input_ids for index in batch], device=stack.input_device)
            targets = torch.tensor([encoded[index].target_id for index in batch])
            logits = stack.logits(ids)
            check_targets(logits.shape[-1], encoded)
            log_probability[batch], correct[batch] = target_scores(logits, targets)
    return ProbeScores(
        float(correct.mean()), float(log_probability.mean()), tuple(correct.tolist()), tuple(log_probability.tolist())
    )


def target_scores(logits: Tensor, targets: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The targets' log-probabilities, and whether they are the likeliest tokens.

    Args:
        logits (`Tensor`): Logits of shape `(probes, vocabulary)`.
        targets (`Tensor`): Token ids of shape `(probes,)`.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: Natural logarithms and booleans, each of shape `(probes,)`.
    """
    log_probabilities = logits.log_softmax(-1)
    targets = targets.to(logits.device)
    own = log_probabilities.gather(1, targets[:, None])[:, 0].double().cpu().numpy()
    return own, (log_probabilities.argmax(-1) == targets).cpu().numpy()


def check_prompts(stack: LayerStack, probes: Sequence[EncodedProbe]) -> None:
    """Refuses prompts that the model's embedding has no entry for.

    Args:
        stack ([`LayerStack`]): The model.
        probes (`Sequence[EncodedProbe]`): The probes.

    Raises:
        LayerTracerError: A token lies outside the vocabulary.
    """
    for number, probe in enumerate(probes):
        for token in probe.input_ids:
            _check_token(token, stack.vocabulary, f"Probe {number}: token {token} of the prompt")


def check_targets(vocabulary: int, probes: Sequence[EncodedProbe]) -> None:
    """Refuses targets that the model's head has no logit for.

    Args:
        vocabulary (`int`): How many logits the model gives.
        probes (`Sequence[EncodedProbe]`): The probes.

    Raises:
        LayerTracerError: A target lies outside the vocabulary.
    """
    for number, probe in enumerate(probes):
        _check_token(probe.target_id, vocabulary, f"Probe {number}: target token {probe.target_id}")


def _check_token(token: int, vocabulary: int | None, what: str) -> None:
    if token < 0 or (vocabulary is not None and token >= vocabulary):
        raise LayerTracerError(
            f"{what} is outside the model's vocabulary of {vocabulary}. Is the tokenizer the model's own?"
        )
