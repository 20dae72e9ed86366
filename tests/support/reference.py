"""Whole forward passes with hooks, one prompt at a time: slow and simple; it shares only random draws with the package."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hf_layertracer.config import DiagnosisConfig
from hf_layertracer.diagnosis.perturbations.mask import dimension_mask
from hf_layertracer.diagnosis.perturbations.noise import noise_like


def whole_pass(
    model: nn.Module, layers: Sequence[nn.Module], prompt: Sequence[int], edits: dict[int, Callable] | None = None
) -> tuple[list[Tensor], list[float]]:
    """One forward pass over one prompt with forward hooks: L + 1 hidden states, and the last position's logits.

    A layer that does not run passes on the hidden state of the one before it, and that is what an edit of it edits.
    """
    states: dict[int, Tensor] = {}

    def hook(index: int) -> Callable:
        def seen(_: nn.Module, args: tuple, kwargs: dict, output: Any) -> Any:
            hidden = output[0] if isinstance(output, tuple | list) else output
            before = args[0] if args else kwargs["hidden_states"]
            if index == 0:
                states[-1] = before.detach().clone()
            if index in edited:
                edit, own = edited[index]
                hidden = edit(before if own else hidden, hidden)
            states[index] = hidden.detach().clone()
            if not isinstance(output, tuple | list):
                return hidden
            return type(output)._make([hidden, *output[1:]]) if hasattr(output, "_make") else (hidden, *output[1:])

        return seen

    edited = {index: (edit, True) for index, edit in (edits or {}).items()}
    handles = [layer.register_forward_hook(hook(index), with_kwargs=True) for index, layer in enumerate(layers)]
    try:
        logits = _logits(model, prompt)
        if not states.keys() >= edited.keys():
            runs = sorted(states)
            edited = {max(run for run in runs if run <= index): (edit, index in runs) for index, edit in edits.items()}
            logits = _logits(model, prompt)
    finally:
        for handle in handles:
            handle.remove()
    passed = [states[max(run for run in states if run <= index)] for index in range(-1, len(layers))]
    return passed, logits.tolist()


def _logits(model: nn.Module, prompt: Sequence[int]) -> Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([list(prompt)])).logits[0, -1]


def probabilities(logits: Sequence[float]) -> list[float]:
    """The softmax of logits."""
    highest = max(logits)
    weights = [math.exp(value - highest) for value in logits]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def divergence(logits_p: Sequence[float], logits_q: Sequence[float]) -> float:
    """Jensen-Shannon divergence in bits, term by term from its definition."""
    terms = []
    for p, q in zip(probabilities(logits_p), probabilities(logits_q), strict=True):
        m = (p + q) / 2
        terms += [x * math.log2(x / m) / 2 for x in (p, q) if x > 0]
    return math.fsum(terms)


def sensitivity(
    model: nn.Module, layers_path: str, prompts: Sequence[Sequence[int]], config: DiagnosisConfig, repeats: int
) -> list[list[list[float]]]:
    """Divergences by layer, probe and repeat: a whole float64 pass for each, straight from DESIGN.md section 2."""
    model = copy.deepcopy(model).double().eval()
    layers = list(model.get_submodule(layers_path))
    clean = [whole_pass(model, layers, prompt)[1] for prompt in prompts]
    values = []
    for layer in range(len(layers)):
        by_probe = []
        for probe, prompt in enumerate(prompts):
            by_repeat = []
            for repeat in range(repeats):

                def edit(before: Tensor, after: Tensor, key: tuple = (repeat, layer, probe)) -> Tensor:
                    if config.perturbation == "skip":
                        return before
                    if config.perturbation == "noise":
                        return after + noise_like(after, config.noise_scale, [(config.diagnosis_seed, *key)])
                    changed = after.clone()
                    number = key[0] * len(prompts) + key[2]
                    mask = dimension_mask(after.shape[-1], config.mask_ratio, config.diagnosis_seed, number)
                    for dimension in mask.nonzero()[:, 0].tolist():
                        changed[..., dimension] = 0.0
                    return changed

                _, perturbed = whole_pass(model, layers, prompt, {layer: edit})
                by_repeat.append(divergence(clean[probe], perturbed))
            by_probe.append(by_repeat)
        values.append(by_probe)
    return values
