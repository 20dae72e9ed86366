"""Reports without a model behind them."""

from __future__ import annotations

import math
from typing import Any

from hf_layertracer.records import LayerPlan, ReportData
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


def make_report(num_layers: int = 6, probes: int = 4, **changes: Any) -> ReportData:
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
    half = (probes + 1) // 2
    tasks = {"facts": half, "sums": probes - half}
    fields: dict[str, Any] = {
        "created": "2026-01-02T03:04:05+00:00",
        "versions": {"hf_layertracer": "0.1.0", "torch": "2.13.0"},
        "model": {
            "id": "someone/tiny-llama",
            "revision": "0123abc",
            "architecture": "LlamaForCausalLM",
            "dtype": "float32",
            "layers_path": "model.layers",
            "layers": [{"kind": "full_attention", "parameters": {"w": 1000}} for _ in depth],
            "embeddings": {"model.embed_tokens.weight": 5000},
            "norm": {"model.norm.weight": 10},
            "head": {"lm_head.weight": 5000},
            "tied": False,
        },
        "config": {
            "perturbation": "mask",
            "mask_ratio": 0.3,
            "noise_scale": 0.5,
            "diagnosis_seed": 7,
            "min_probability": 0.01,
        },
        "probes": {
            "count": probes,
            "sha256": "c0ffee",
            "tasks": tasks,
            "accuracy": 0.5,
            "mean_log_probability": -1.25,
            "accuracy_by_task": dict.fromkeys(tasks, 0.5),
            "items": [
                {"prompt": "a", "target": "b", "task": "facts", "tokens": 1, "probability": 0.5, "correct": True}
            ]
            * probes,
        },
        "lens": {
            "valid": True,
            "error": 0.0,
            "mean_probability": curve,
            "stderr": [value / 10 for value in curve],
            "by_task": {"facts": curve, "sums": [value / 2 for value in curve]},
            "per_probe": [curve] * probes,
        },
        "task_particle": {**particle, "per_probe": [None] * probes, "by_task": {"facts": particle, "sums": particle}},
        "sensitivity": {
            "estimate": False,
            "mean": sensitivity,
            "stderr": [0.02] * num_layers,
            "vulnerable_layer": sensitivity.index(max(sensitivity)),
            "contenders": [sensitivity.index(max(sensitivity))],
            "shallow_minus_deep": 0.21,
            "shallow_minus_deep_stderr": 0.015,
            "rank_stability": 0.93,
            "by_task": {"facts": sensitivity, "sums": sensitivity},
            "draws": 64 * probes,
            "repeats": 64,
            "path": "replay",
        },
        "block_influence": [0.1] * num_layers,
        "plan": make_plan(num_layers).model_dump(),
    }
    for name, value in changes.items():
        *parents, last = name.split("__")
        place = fields
        for parent in parents:
            place = place[parent]
        place[last] = value
    return ReportData.model_validate(fields)


def make_plan(num_layers: int, **changes: Any) -> LayerPlan:
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


def make_snapshot(num_layers: int, **changes: Any) -> dict[str, Any]:
    fields = {
        "step": 100,
        "lens_mean_probability": [0.1] * num_layers + [0.9],
        "task_particle": 1.0,
        "task_particle_interval": (1.0, 2.0),
        "sensitivity": [0.3] * (num_layers - 1) + [0.4],
        "sensitivity_stderr": [0.01] * num_layers,
        "accuracy": 0.75,
        "mean_log_probability": -0.5,
    }
    return fields | changes


def whole_report(num_layers: int = 6, probes: int = 4, history: bool = False, **changes: Any) -> LayerTracerReport:
    """A report with likeliest tokens and, if wanted, with a training run and later diagnoses."""
    content = make_report(num_layers, probes, **changes).model_dump()
    if content["lens"]["per_probe"] and content["lens"]["top_tokens"] is None:
        content["lens"]["top_tokens"] = [[f" t{layer}" for layer in range(num_layers + 1)] for _ in range(probes)]
    if history:
        content["history"] = [make_snapshot(num_layers, step=step) for step in (10, 20)]
        content["training"] = {
            "steps": 20,
            "seconds": 1.5,
            "tokens_per_second": 123.4,
            "peak_memory_bytes": 2**30,
            "peak_memory_of": "process",
            "trainable_parameters": 10,
            "eval_loss_before": 3.25,
            "eval_loss_after": 3.0,
        }
    return LayerTracerReport.model_validate(content)


def full_of(text: str) -> LayerTracerReport:
    """A valid report that has the text in every field that may hold text, and as a key where keys are free."""

    def replaced(value: object, key: str = "") -> object:
        if isinstance(value, str):
            return value if key == "created" else text
        if isinstance(value, list):
            return [replaced(entry) for entry in value]
        if isinstance(value, dict) and key in (
            "tasks",
            "by_task",
            "accuracy_by_task",
            "config",
            "options",
            "versions",
        ):
            first = next(iter(value.values()), 1)
            return {text: replaced(first), "other": replaced(first)}
        if isinstance(value, dict):
            return {name: replaced(entry, name) for name, entry in value.items()}
        return value

    report = whole_report(history=True)
    report.notes, report.lens.reason = ["note"], "reason"
    report.plan.patterns = ["mlp"]
    return LayerTracerReport.model_validate(replaced(report.model_dump()))
