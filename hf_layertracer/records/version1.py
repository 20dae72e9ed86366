"""Reports of schema version 1: the first diagnosis lay in the report itself, later ones as a few flat values."""

from __future__ import annotations

import json
from typing import Any

from .base import Bits, Count, Error, NonNegative, Probability, Real, Record


_RENAMED_SETTINGS = {"seed": "diagnosis_seed", "batch_size": "diagnosis_batch_size"}
_RENAMED_OPTIONS = {"layers": "train_layers", "seed": "plan_seed"}
# What a later diagnosis shares with the first one, as probes and settings were the same.
_KEPT = ("draws", "repeats", "path", "path_reason")
_ESTIMATED = "Layer Sensitivity was estimated from gradients, which this version no longer does."


class _Probe(Record):
    prompt: str | None
    target: str | None
    task: str
    tokens: Count
    probability: Probability
    correct: bool


class _Probes(Record):
    count: Count
    sha256: str
    tasks: dict[str, Count]
    accuracy: Probability
    mean_log_probability: Real
    accuracy_by_task: dict[str, Probability]
    items: list[_Probe]


class _Snapshot(Record):
    step: Count
    lens_mean_probability: list[Probability]
    task_particle: NonNegative | None
    task_particle_interval: tuple[NonNegative, NonNegative] | None
    sensitivity: list[Bits]
    sensitivity_stderr: list[Error]
    accuracy: Probability
    mean_log_probability: Real


class _Report(Record):
    """The parts of a version 1 report that moved; what did not change inside is validated in its new place."""

    created: str
    versions: dict[str, str]
    model: dict[str, Any]
    config: dict[str, Any]
    probes: _Probes
    lens: dict[str, Any]
    task_particle: dict[str, Any]
    sensitivity: dict[str, Any]
    block_influence: list[Any]
    plan: dict[str, Any] | None = None
    history: list[_Snapshot] = []
    training: dict[str, Any] | None = None
    durations: dict[str, Any] = {}
    memory: dict[str, Any] = {}
    notes: list[Any] = []


def upgrade(content: dict[str, Any]) -> dict[str, Any]:
    """Turns the content of a version 1 file into that of a version 2 file.

    No number changes. What version 1 did not keep is left empty: the covariances of Layer Sensitivity, and of later
    diagnoses all but the means.

    Args:
        content (`dict[str, Any]`): What the JSON holds, of any quality.

    Returns:
        `dict[str, Any]`: The same report in version 2, still to be validated.

    Raises:
        pydantic.ValidationError: A part that moves is missing or malformed.
    """
    old = _Report.model_validate_json(json.dumps(content), strict=True)
    probes = old.probes.model_dump()
    answers = {name: [item.pop(name) for item in probes["items"]] for name in ("probability", "correct")}
    figures = {name: probes.pop(name) for name in ("accuracy", "mean_log_probability", "accuracy_by_task")}
    perturbation = str(old.config.get("perturbation", "mask"))
    first = {
        "step": 0,
        "lens": old.lens,
        "task_particle": old.task_particle,
        "sensitivities": {perturbation: old.sensitivity},
        "block_influence": old.block_influence,
        "scores": figures | answers,
        "durations": old.durations,
        "memory": old.memory,
    }
    return {
        "schema_version": 2,
        "created": old.created,
        "versions": old.versions,
        "model": old.model,
        "settings": _renamed(old.config, _RENAMED_SETTINGS),
        "probes": probes,
        "diagnoses": [first, *(_later(snapshot, old, perturbation) for snapshot in old.history)],
        "plans": [] if old.plan is None else [{"step": 0, "plan": _plan(old.plan)}],
        "training": old.training,
        "notes": old.notes + ([_ESTIMATED] if old.sensitivity.get("estimate") is True else []),
    }


def _plan(plan: dict[str, Any]) -> dict[str, Any]:
    options = plan.get("options")
    return {**plan, "options": _renamed(options, _RENAMED_OPTIONS)} if isinstance(options, dict) else plan


def _renamed(values: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in values.items()}


def _later(snapshot: _Snapshot, report: _Report, perturbation: str) -> dict[str, Any]:
    read = bool(snapshot.lens_mean_probability)
    return {
        "step": snapshot.step,
        "lens": {
            "valid": read,
            "reason": None if read else report.lens.get("reason"),
            "mean_probability": snapshot.lens_mean_probability,
        },
        "task_particle": {
            "layer": snapshot.task_particle,
            "interval": snapshot.task_particle_interval,
            "quartiles": None,
            "mean_curve_layer": None,
            "unresolved": None,
            "per_probe": [],
            "by_task": {},
        },
        "sensitivities": {
            perturbation: {
                **{name: report.sensitivity[name] for name in _KEPT if name in report.sensitivity},
                "mean": snapshot.sensitivity,
                "stderr": snapshot.sensitivity_stderr,
                "contenders": None,
                "shallow_minus_deep_stderr": None,
                "rank_stability": None,
                "by_task": {},
            }
        },
        "block_influence": [],
        "scores": {"accuracy": snapshot.accuracy, "mean_log_probability": snapshot.mean_log_probability},
    }
