"""Reports without a model behind them: the one place that makes them up."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

from hf_layertracer.records import (
    ContextSensitivity,
    LayerPlan,
    LensControl,
    LensWithoutNorm,
    MaxRatio,
    ModelFacts,
)
from hf_layertracer.report import LayerTracerReport


# What runs, where a page takes text for more than text: as HTML, as Markdown, in a template or in a formula.
MARKUP = (
    "<script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=1>",
    '"><svg/onload=window.hacked=1>',
    "[x](javascript:window.hacked=1)",
    "![x](http://127.0.0.1:9/leak.png)",
    "${window.hacked=1}",
    "{{#each value}}",
    "`${alert(1)}`",
    "<a href='javascript:window.hacked=1'>x</a>",
    "$$\\href{javascript:window.hacked=1}{x}$$",
    "=cmd|' /C calc'!A0",
)
TRAINING = {
    "steps": 20,
    "seconds": 1.5,
    "tokens_per_second": 123.4,
    "peak_memory_bytes": 2**30,
    "peak_memory_of": "process",
    "trainable_parameters": 10,
    "eval_loss_before": 3.25,
    "eval_loss_after": 3.0,
}
_OF_A_DIAGNOSIS = ("lens", "task_particle", "sensitivity", "block_influence", "scores")


def make_report(num_layers: int = 6, probes: int = 4, **changes: Any) -> LayerTracerReport:
    """A report of one diagnosis and one plan; `changes` as [`changed`] takes them."""
    half = (probes + 1) // 2
    tasks = {"facts": half, "sums": probes - half}
    content: dict[str, Any] = {
        "schema_version": 2,
        "created": "2026-01-02T03:04:05+00:00",
        "versions": {"hf_layertracer": "0.1.0", "torch": "2.13.0"},
        "model": {
            "id": "someone/tiny-llama",
            "revision": "0123abc",
            "architecture": "LlamaForCausalLM",
            "dtype": "float32",
            "layers_path": "model.layers",
            "layers": [{"kind": "full_attention", "parameters": {"w": 1000}} for _ in range(num_layers)],
            "embeddings": {"model.embed_tokens.weight": 5000},
            "norm": {"model.norm.weight": 10},
            "head": {"lm_head.weight": 5000},
            "tied": False,
        },
        "settings": {"perturbation": "mask", "mask_ratio": 0.3, "noise_scale": 0.5, "diagnosis_seed": 7},
        "probes": {
            "count": probes,
            "sha256": "c0ffee",
            "tasks": tasks,
            "items": [{"prompt": "a", "target": "b", "task": "facts", "tokens": 1}] * probes,
        },
        "diagnoses": [_first_diagnosis(num_layers, probes, list(tasks))],
        "plans": [{"step": 0, "plan": make_plan(num_layers).model_dump()}],
    }
    return LayerTracerReport.model_validate(changed(content, **changes))


def changed(content: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The content of a report with other values.

    `model__id="x"` changes `model.id`; `lens`, `task_particle`, `sensitivity`, `block_influence` and `scores` are those of
    the first diagnosis; `plan` is the one plan, or `None`; `later` are diagnoses that follow the first.
    """
    content = copy.deepcopy(content)
    first = content["diagnoses"][0]
    for name, value in changes.items():
        if name == "plan":
            plan = value.model_dump() if isinstance(value, LayerPlan) else value
            content["plans"] = [] if plan is None else [{"step": 0, "plan": plan}]
            continue
        if name == "later":
            content["diagnoses"] = [first, *value]
            continue
        *parents, last = name.split("__")
        place = content
        if name.split("__")[0] in _OF_A_DIAGNOSIS:
            place = first
            if name.startswith("sensitivity"):
                (measured,) = first["sensitivities"]
                parents, last = (
                    (["sensitivities", measured, *parents[1:]], last) if parents else (["sensitivities"], measured)
                )
        for parent in parents:
            place = place[parent]
        place[last] = value
    return content


def _first_diagnosis(num_layers: int, probes: int, tasks: list[str]) -> dict[str, Any]:
    depth = [layer / max(1, num_layers - 1) for layer in range(num_layers)]
    curve = [0.0, *(round(0.8 / (1 + math.exp(12 * (0.75 - x))), 4) for x in depth)]
    sensitivity = [round(0.6 - 0.4 * x + 0.05 * math.sin(9 * x), 4) for x in depth]
    particle = {
        "layer": 0.7 * (num_layers - 1),
        "quartiles": (0.6 * (num_layers - 1), 0.8 * (num_layers - 1)),
        "interval": (0.65 * (num_layers - 1), 0.75 * (num_layers - 1)),
        "mean_curve_layer": num_layers - 1,
        "unresolved": 1,
    }
    first, second = tasks
    return {
        "step": 0,
        "lens": {
            "valid": True,
            "error": 0.0,
            "mean_probability": curve,
            "stderr": [value / 10 for value in curve],
            "by_task": {first: curve, second: [value / 2 for value in curve]},
            "per_probe": [curve] * probes,
        },
        "task_particle": {**particle, "per_probe": [None] * probes, "by_task": {first: particle, second: particle}},
        "sensitivities": {
            "mask": {
                "mean": sensitivity,
                "stderr": [0.02] * num_layers,
                "covariance": independent([0.02] * num_layers),
                "contenders": [sensitivity.index(max(sensitivity))],
                "shallow_minus_deep_stderr": 0.015,
                "rank_stability": 0.93,
                "by_task": {first: sensitivity, second: sensitivity},
                "draws": 64 * probes,
                "repeats": 64,
                "path": "replay",
            }
        },
        "block_influence": [0.1] * num_layers,
        "scores": {
            "accuracy": 0.5,
            "mean_log_probability": -1.25,
            "accuracy_by_task": dict.fromkeys(tasks, 0.5),
            "probability": [0.5] * probes,
            "correct": [True] * probes,
        },
    }


def with_further(report: LayerTracerReport) -> LayerTracerReport:
    """The report with all that a diagnosis may measure beside the first perturbation."""
    num_layers, first = report.num_layers, report.first
    skip = first.sensitivity.model_copy(update={"mean": [0.9] + [0.1] * (num_layers - 1)})
    first.sensitivities = {**first.sensitivities, "skip": skip}
    first.context = ContextSensitivity(
        mean=[0.0] + [0.4] * num_layers,
        stderr=[0.0] * (num_layers + 1),
        delta=[0.4] + [0.0] * (num_layers - 1),
        delta_stderr=[0.05] * num_layers,
        draws=4,
    )
    curve = [0.01 * depth for depth in range(num_layers + 1)]
    first.lens.control = LensControl(
        targets=3, mean_probability=curve, stderr=[0.0] * len(curve), resolved=0.25, unsupported=1, layers=[1]
    )
    first.lens.without_norm = LensWithoutNorm(mean_probability=curve, layer=4.0, unresolved=2)
    layer = num_layers - 2.0
    first.task_particle.max_ratio = MaxRatio(
        layer=layer,
        quartiles=None,
        interval=None,
        mean_curve_layer=0,
        unresolved=0,
        per_probe=[0] * report.probes.count,
    )
    return report


def independent(stderr: Sequence[float]) -> list[list[float]]:
    """The covariances of means that have nothing to do with each other."""
    return [[0.0] * layer + [error**2] for layer, error in enumerate(stderr)]


def make_later(num_layers: int, probes: int = 4, **changes: Any) -> dict[str, Any]:
    """A whole diagnosis after step 100, as it stands in JSON; `changes` as [`changed`] takes them, and `step`."""
    diagnosis = _first_diagnosis(num_layers, probes, ["facts", "sums"]) | {"step": changes.pop("step", 100)}
    usual: dict[str, Any] = {
        "lens__mean_probability": [0.1] * num_layers + [0.9],
        "task_particle__layer": 1.0 if num_layers > 1 else 0.0,
        "task_particle__interval": (1.0, 2.0) if num_layers > 2 else None,
        "sensitivity__mean": [0.3] * (num_layers - 1) + [0.4],
        "sensitivity__stderr": [0.01] * num_layers,
        "sensitivity__contenders": [num_layers - 1],
        "scores__accuracy": 0.75,
        "scores__mean_log_probability": -0.5,
    }
    return changed({"diagnoses": [diagnosis]}, **(usual | changes))["diagnoses"][0]


def make_plan(num_layers: int, **changes: Any) -> LayerPlan:
    """A plan that freezes the deep half."""
    split = (num_layers + 1) // 2
    fields: dict[str, Any] = {
        "strategy": "freeze-deep",
        "options": {"freeze_ratio": 0.5},
        "num_layers": num_layers,
        "layers_path": "model.layers",
        "trained_layers": list(range(split)),
        "frozen_layers": list(range(split, num_layers)),
        "train_embeddings": True,
        "train_norm": False,
        "train_head": False,
        "reason": "Deep layers execute the tasks and are stable.",
        "savings": {
            "trainable_parameters": 60_000_000,
            "trainable_parameters_full": 120_000_000,
            "total_parameters": 125_000_000,
            "optimizer_bytes": 480 * 2**20,
            "optimizer_bytes_full": 960 * 2**20,
            "gradient_bytes": 240 * 2**20,
            "gradient_bytes_full": 480 * 2**20,
            "flops_per_token": 500_000_000,
            "flops_per_token_full": 2_000_000_000,
        },
    }
    return LayerPlan.model_validate(fields | changes)


def report_of(
    facts: ModelFacts,
    sensitivity: Sequence[float] | None = None,
    block_influence: Sequence[float] | None = None,
    task_particle: float | None = 2.0,
    stderr: float = 0.01,
) -> LayerTracerReport:
    """An invented diagnosis of a real model, without a plan: one probe, no lens, layers that err independently."""
    layers = facts.num_layers
    falling = [0.9 - 0.8 * layer / layers for layer in range(layers)]
    scores = list(sensitivity if sensitivity is not None else falling)
    found = task_particle is not None
    layer = min(task_particle, layers - 1) if found else None
    return make_report(
        layers,
        probes=1,
        model=facts.model_dump(),
        plan=None,
        lens={"valid": False, "reason": "invented"},
        task_particle={
            "layer": layer,
            "quartiles": (layer, layer) if found else None,
            "interval": (layer, layer) if found else None,
            "mean_curve_layer": None,
            "unresolved": 0 if found else 1,
            "per_probe": [int(layer) if found else None],
            "by_task": {},
        },
        sensitivity__mean=scores,
        sensitivity__stderr=[stderr] * layers,
        sensitivity__covariance=independent([stderr] * layers),
        sensitivity__contenders=[scores.index(max(scores))],
        block_influence=list(block_influence if block_influence is not None else falling),
    )


def whole_report(num_layers: int = 6, probes: int = 4, history: bool = False, **changes: Any) -> LayerTracerReport:
    """A report with likeliest tokens and, if wanted, with a training run and later diagnoses."""
    report = make_report(num_layers, probes, **changes)
    if report.first.lens.per_probe and report.first.lens.top_tokens is None:
        report.first.lens.top_tokens = [[f" t{layer}" for layer in range(num_layers + 1)] for _ in range(probes)]
        said = [[(f" t{layer}", 0.5), (" u", 0.25), (" v", 0.125)] for layer in range(num_layers + 1)]
        report.first.lens.likely = [said] * probes if probes <= 100 else None
    content = report.model_dump()
    if history:
        content["diagnoses"] += [make_later(num_layers, probes, step=step) for step in (10, 20)]
        content["training"] = dict(TRAINING)
    return LayerTracerReport.model_validate(content)


def full_of(text: str) -> LayerTracerReport:
    """A valid report that has the text in every field that may hold text, and as a key where keys are free."""

    def replaced(value: object, key: str = "") -> object:
        if key == "settings":
            return {**value, "layers_path": text}
        if isinstance(value, str):
            return value if key == "created" else text
        if isinstance(value, list):
            return [replaced(entry) for entry in value]
        if isinstance(value, dict) and key == "sensitivities":
            return {text: replaced(next(iter(value.values())))}
        if isinstance(value, dict) and key in ("tasks", "by_task", "accuracy_by_task", "options", "versions"):
            first = next(iter(value.values()), 1)
            return {text: replaced(first), "other": replaced(first)}
        if isinstance(value, dict):
            return {name: replaced(entry, name) for name, entry in value.items()}
        return value

    report = whole_report(history=True)
    report.notes = report.latest.notes = ["note"]
    report.first.lens.reason = "reason"
    report.plan.patterns = ["mlp"]
    return LayerTracerReport.model_validate(replaced(report.model_dump()))
