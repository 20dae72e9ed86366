"""What shows only over several passes, in long prompts or in a deeper model."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_layertracer import DiagnosisConfig, Probe, diagnose
from hf_layertracer.errors import LayerTracerError

from ..support.reference import divergence, whole_pass
from .tiny import tiny_config, tiny_model


# Longer than any window, chunk or block of the tiny models, and than the prompt that shows the layout of an architecture.
LONG = tuple((7 * number) % 120 + 4 for number in range(44))
SHORT = (33, 34, 21, 6)
SKIP = DiagnosisConfig(perturbation="skip", repeats=1)
TIMES = 3  # as deep: twelve layers instead of four


def check_passes(model: nn.Module) -> str:
    """A short prompt changes nothing for a long one after it: not in the model, or else not in the diagnosis."""
    own = copy.deepcopy(model)
    before, _, after = (_logits(own, prompt) for prompt in (LONG, SHORT, LONG))
    if torch.allclose(before, after, atol=1e-5 * float(before.abs().max())):
        return ""
    try:
        alone = diagnose(copy.deepcopy(model), [Probe(LONG, 10)], config=SKIP)
        both = diagnose(copy.deepcopy(model), [Probe(SHORT, 10), Probe(LONG, 10)], config=SKIP)
    except LayerTracerError as error:
        return f"reported: {error}"
    gap = abs(alone.first.scores.probability[0] - both.first.scores.probability[1])
    if gap <= 1e-5:
        return ""
    said = [note for note in both.notes if "it is random" in note]
    return f"reported: {said[0]}" if said else f"after a short prompt, a long one has another answer by {gap:.2g}"


def check_depth(model_type: str) -> str:
    """In a model of twelve layers, a long and a short prompt give what whole passes give, and no weight changes."""
    model = tiny_model(tiny_config(model_type, TIMES))
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    untouched = copy.deepcopy(model)
    try:
        report = diagnose(model, [Probe(LONG, 10), Probe(SHORT, 10)], config=SKIP)
    except LayerTracerError as error:
        return f"reported: {error}"
    for name, tensor in model.state_dict().items():
        if not torch.equal(tensor.nan_to_num(), weights[name].nan_to_num()):
            return f"{name} changed"
    if report.num_layers < 12:
        return f"{report.num_layers} layers are not twelve"
    expected = np.mean([_left_out(untouched, report.model.layers_path, prompt) for prompt in (LONG, SHORT)], axis=0)
    # As in the checks of the small models: of small divergences, float32 leaves an absolute error.
    gap = np.abs(expected - report.sensitivity.mean) - 1e-3 * expected
    if gap.max() <= 1e-5:
        return ""
    said = [note for note in report.notes if "it is random" in note]
    return (
        f"reported: {said[0]}" if said else f"layer {gap.argmax()} differs from whole passes by {gap.max():.2g} bits"
    )


def _left_out(model: PreTrainedModel, layers_path: str, prompt: tuple[int, ...]) -> list[float]:
    # Each pass on a copy: some models change themselves while they run.
    layers = len(model.get_submodule(layers_path))

    def logits(skipped: int | None) -> list[float]:
        own = copy.deepcopy(model)
        edits = None if skipped is None else {skipped: _unchanged}
        return whole_pass(own, list(own.get_submodule(layers_path)), prompt, edits)[1]

    clean = logits(None)
    return [divergence(clean, logits(layer)) for layer in range(layers)]


def _unchanged(before: Tensor, after: Tensor) -> Tensor:
    return before


def _logits(model: nn.Module, prompt: tuple[int, ...]) -> Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([prompt])).logits[0, -1]
