"""What must hold for a model type, checked against plain loops that share no code with the package."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_layertracer import DiagnosisConfig, Probe, diagnose
from hf_layertracer.diagnosis.perturbations.mask import dimension_mask
from hf_layertracer.errors import LayerTracerError

from ..support.reference import divergence, probabilities, whole_pass
from .passes import SKIP, check_depth, check_passes
from .plans import check_freeze, check_training
from .tiny import tiny_config, tiny_model


PROMPTS = ((5, 80, 31, 7, 40, 9), (14, 3, 77, 60, 22, 90), (33, 34, 21, 6))
PROBES = [Probe(prompt, 10 + 7 * number) for number, prompt in enumerate(PROMPTS)]
MASK = DiagnosisConfig(perturbation="mask", repeats=2, mask_ratio=0.3, min_probability=1e-6)
NOTHING = DiagnosisConfig(perturbation="noise", noise_scale=1e-30, repeats=1)
PRECISION = 1e-4  # float32 through two orders of the same sums: in probability, or as a fraction of a divergence


@dataclass
class Result:
    """What was found of one model type.

    A check is `"ok"`; `"reported: ..."`, where the report itself says that something does not hold; `"n/a: ..."`, where
    transformers cannot do it either; or it says what is wrong.

    Args:
        model_type (`str`): The type.
        architecture (`str`): The class of the model.
        built (`str`): Whether transformers builds it; nothing else is checked where it does not.
        not_causal (`str`): Why it is no causal language model on token ids, if it is none: it has to be refused then.
        refused (`str`): The error with which the package refuses the model, if it does.
        layers_path (`str`), kinds (`list[str]`): What was found.
        path (`str`), path_reason (`str`): How Layer Sensitivity was measured.
        lens_reason (`str`): Why the lens is not valid, where the report says so.
        checks (`dict[str, str]`): The checks.
    """

    model_type: str
    architecture: str
    built: str = "ok"
    not_causal: str = ""
    refused: str = ""
    layers_path: str = ""
    kinds: list[str] = field(default_factory=list)
    path: str = ""
    path_reason: str = ""
    lens_reason: str = ""
    checks: dict[str, str] = field(default_factory=dict)


def check_type(model_type: str) -> dict[str, Any]:
    """Runs all checks on a tiny model of a type. Never raises: what happens is the result."""
    result = Result(model_type, transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type])
    try:
        model = tiny_model(tiny_config(model_type))
    except Exception as error:
        result.built = f"{type(error).__name__}: {error}"
        return asdict(result)
    result.not_causal = not_causal(model)
    check_model(model, result)
    return asdict(result)


def not_causal(model: PreTrainedModel) -> str:
    """Why a model predicts no next token when it is given token ids and nothing else; empty where it does."""
    own = copy.deepcopy(model)
    prompt = torch.tensor(PROMPTS[:2])
    try:
        with torch.no_grad():
            one, other = (own(input_ids=ids).logits for ids in (prompt, torch.cat([prompt[:, :-1], prompt[:, :1]], 1)))
    except Exception as error:
        return f"transformers cannot run it on token ids alone ({type(error).__name__})"
    difference = (one - other)[:, :-1].abs().max()
    return (
        f"it looks ahead (by {difference / one.abs().max():.2g})" if difference > PRECISION * one.abs().max() else ""
    )


def check_model(model: PreTrainedModel, result: Result) -> None:
    before = _snapshot(model)
    try:
        report, skipped, untouched = (diagnose(model, PROBES, config=config) for config in (MASK, SKIP, NOTHING))
    except LayerTracerError as error:
        result.refused = str(error)
        return
    except Exception as error:
        result.checks["diagnosis"] = f"{type(error).__name__}: {error}"
        return
    result.layers_path, result.kinds = report.model.layers_path, [layer.kind for layer in report.model.layers]
    result.path, result.path_reason = report.sensitivity.path, report.sensitivity.path_reason or ""
    result.lens_reason = report.lens.reason or ""
    for name, check in {
        "as found": lambda: _same(before, _snapshot(model)),  # after three diagnoses
        "lens": lambda: check_lens(model, report),
        "sensitivity": lambda: check_sensitivity(model, report, skipped),
        "zero": lambda: check_zero(untouched),
        "passes": lambda: check_passes(model),
        "depth": lambda: check_depth(result.model_type),
        "freeze": lambda: check_freeze(model, report),
        "training": lambda: check_training(model, report),
    }.items():
        try:
            result.checks[name] = check() or "ok"
        except Exception as error:
            result.checks[name] = f"{type(error).__name__}: {error}"


def check_lens(model: nn.Module, report: Any) -> str:
    """The lens at every layer is a whole pass in which the last layer answers that layer's hidden state."""
    if not report.lens.valid:
        return f"reported: {report.lens.reason}"
    layers = list(model.get_submodule(report.model.layers_path))
    for number, prompt in enumerate(PROMPTS):
        states, logits = whole_pass(model, layers, prompt)
        own = probabilities(logits)
        target = PROBES[number].target
        for depth, state in enumerate(states):
            _, read = whole_pass(
                model, layers, prompt, {len(layers) - 1: lambda _, after, state=state: state.view(after.shape)}
            )
            read = probabilities(read)
            ours = report.lens.per_probe[number][depth]
            if abs(ours - read[target]) > PRECISION:
                return f"probe {number} at depth {depth}: {ours:.5f}, whole pass {read[target]:.5f}"
        if abs(report.lens.per_probe[number][-1] - own[target]) > PRECISION:
            return f"probe {number} at the last layer is not the model's own probability"
    if max(report.lens.mean_probability) - min(report.lens.mean_probability) < 1e-6:
        return "the curve is flat: nothing was tested"
    return ""


def check_sensitivity(model: nn.Module, report: Any, skipped: Any) -> str:
    """Layer Sensitivity is that of whole passes with a hook, for masks and for layers left out."""
    layers = list(model.get_submodule(report.model.layers_path))
    for name, measured, repeats in (("mask", report, MASK.repeats), ("skip", skipped, 1)):
        values = np.zeros((len(layers), len(PROMPTS), repeats))
        for number, prompt in enumerate(PROMPTS):
            clean = whole_pass(model, layers, prompt)[1]
            for repeat in range(repeats):
                edit = _left_out if name == "skip" else partial(_masked, repeat * len(PROMPTS) + number)
                for index in range(len(layers)):
                    perturbed = whole_pass(model, layers, prompt, {index: edit})[1]
                    values[index, number, repeat] = divergence(clean, perturbed)
        expected = values.mean((1, 2))
        # Of small divergences, float32 leaves an absolute error.
        gap = np.abs(expected - measured.sensitivity.mean) - 10 * PRECISION * expected
        if gap.max() > 1e-6:
            return f"{name}: layer {gap.argmax()} differs from whole passes by {gap.max():.2g} bits"
        if name == "mask" and expected.min() < 1e-5:
            return f"masking layer {expected.argmin()} does nothing: nothing was tested"
    return ""


def _left_out(before: Tensor, after: Tensor) -> Tensor:
    return before


def _masked(draw: int, before: Tensor, after: Tensor) -> Tensor:
    return torch.where(dimension_mask(after.shape[-1], MASK.mask_ratio, MASK.diagnosis_seed, draw), 0.0, after)


def check_zero(untouched: Any) -> str:
    """A perturbation that changes nothing has no effect."""
    worst = max(untouched.sensitivity.mean)
    return f"{worst:.2g} bits for a perturbation of nothing" if worst > 1e-6 else ""


def _snapshot(model: nn.Module) -> dict[str, Any]:
    return {
        "weights": {name: tensor.clone() for name, tensor in [*model.named_parameters(), *model.named_buffers()]},
        "gradients": [(name, parameter.requires_grad, parameter.grad) for name, parameter in model.named_parameters()],
        "modes": [module.training for module in model.modules()],
        "forwards": [module.__dict__.get("forward") for module in model.modules()],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        "config": model.config.to_dict(),
        "random": torch.get_rng_state(),
    }


def _same(before: dict[str, Any], after: dict[str, Any]) -> str:
    for name, tensor in before["weights"].items():
        if not torch.equal(tensor.nan_to_num(), after["weights"][name].nan_to_num()):
            return f"{name} changed"
    if not torch.equal(before["random"], after["random"]):
        return "the random state changed"
    for name in ("gradients", "modes", "forwards", "hooks", "config"):
        if before[name] != after[name]:
            return f"{name} changed"
    return ""
