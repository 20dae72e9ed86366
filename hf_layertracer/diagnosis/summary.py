"""From arrays of measurements to the summaries in a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsFloat

import numpy as np

from ..config import DiagnosisConfig
from ..records import ContextSensitivity, Lens, MaxRatio, Sensitivity, TaskParticle, TaskParticleSummary, halves
from .statistics import bootstrap_median_interval, rank_stability, standard_error
from .task_particle import max_ratio_of, task_particle_of


def summarise_lens(curves: np.ndarray, tasks: Sequence[str], top_tokens: list[list[str]] | None, error: float) -> Lens:
    """The lens part of a report.

    Args:
        curves (`np.ndarray`): Lens probabilities of shape `(probes, layers + 1)`.
        tasks (`Sequence[str]`): Task of each probe.
        top_tokens (`list[list[str]]`, *optional*): The likeliest token at each layer, for each probe.
        error (`float`): Largest difference between the reading at the last layer and the model's own output.

    Returns:
        [`Lens`]: A valid lens.
    """
    return Lens(
        valid=True,
        error=error,
        mean_probability=_floats(curves.mean(0)),
        stderr=_floats(standard_error(curves, axis=0)),
        by_task={task: _floats(curves[members].mean(0)) for task, members in by_task(tasks).items()},
        per_probe=[_floats(curve) for curve in curves],
        top_tokens=top_tokens,
    )


def summarise_task_particle(curves: np.ndarray, tasks: Sequence[str], config: DiagnosisConfig) -> TaskParticle:
    """The Task Particle of each probe, of each task and of all probes.

    Args:
        curves (`np.ndarray`): Lens probabilities of shape `(probes, layers + 1)`; no rows where the lens is invalid.
        tasks (`Sequence[str]`): Task of each probe.
        config ([`DiagnosisConfig`]): Holds `rise`, `min_probability` and `diagnosis_seed`.

    Returns:
        [`TaskParticle`]: All of them; where the lens is invalid, every probe is unresolved.
    """
    curves = curves if len(curves) else np.zeros((len(tasks), 2))
    per_probe = [task_particle_of(curve, config.rise, config.min_probability) for curve in curves]

    def summary(members: np.ndarray) -> TaskParticleSummary:
        resolved = np.array([per_probe[i] for i in members if per_probe[i] is not None], dtype=np.float64)
        found = len(resolved) > 0
        return TaskParticleSummary(
            layer=float(np.median(resolved)) if found else None,
            quartiles=tuple(np.percentile(resolved, [25, 75]).tolist()) if found else None,
            interval=bootstrap_median_interval(resolved, config.diagnosis_seed) if found else None,
            mean_curve_layer=task_particle_of(curves[members].mean(0), config.rise, config.min_probability),
            unresolved=len(members) - len(resolved),
        )

    return TaskParticle(
        **summary(np.arange(len(tasks))).model_dump(),
        per_probe=per_probe,
        by_task={task: summary(members) for task, members in by_task(tasks).items()},
    )


def summarise_max_ratio(curves: np.ndarray, config: DiagnosisConfig) -> MaxRatio:
    """The Task Particle by its second rule.

    Args:
        curves (`np.ndarray`):
            Lens probabilities of the tokens that the model itself predicts, of shape `(probes, layers + 1)`.
        config ([`DiagnosisConfig`]): Holds `diagnosis_seed`.

    Returns:
        [`MaxRatio`]: That of every probe, and of all; no probe is unresolved.
    """
    layers = [max_ratio_of(curve) for curve in curves]
    first, third = np.percentile(layers, [25, 75]).tolist()
    return MaxRatio(
        layer=float(np.median(layers)),
        quartiles=(first, third),
        interval=bootstrap_median_interval(np.array(layers, dtype=np.float64), config.diagnosis_seed),
        mean_curve_layer=max_ratio_of(curves.mean(0)),
        unresolved=0,
        per_probe=layers,
    )


def summarise_context(values: np.ndarray, draws: int) -> ContextSensitivity:
    """The context sensitivity of a report.

    Args:
        values (`np.ndarray`): Divergences in bits, of shape `(probes, layers + 1)`, each a mean over the probe's draws.
        draws (`int`): How many draws there were.

    Returns:
        [`ContextSensitivity`]: Means and standard errors, at each depth and of what each layer adds.
    """
    steps = np.diff(values, axis=1)
    return ContextSensitivity(
        mean=_floats(values.mean(0)),
        stderr=_floats(standard_error(values, axis=0)),
        delta=_floats(steps.mean(0)),
        delta_stderr=_floats(standard_error(steps, axis=0)),
        draws=draws,
    )


def summarise_sensitivity(values: np.ndarray, tasks: Sequence[str], seed: int, **facts) -> Sensitivity:
    """Means, standard errors and what can be concluded from them.

    Args:
        values (`np.ndarray`): Divergences in bits, of shape `(layers, repeats, probes)`.
        tasks (`Sequence[str]`): Task of each of these probes.
        seed (`int`): Seed of the random halves behind the rank stability.
        facts: The fields of [`Sensitivity`] that say how the values came about.

    Returns:
        [`Sensitivity`]: The sensitivity part of a report.
    """
    # Draws of different probes are independent, so probes are the units of the standard error; the draws of a single
    # probe are independent too and stand in for them where there is but one.
    units = values.mean(1) if values.shape[2] > 1 else values[:, :, 0]
    mean = _floats(units.mean(1).clip(0, 1))
    vulnerable = mean.index(max(mean))
    behind = units[vulnerable] - units
    contenders = np.flatnonzero(behind.mean(1) <= 2 * standard_error(behind, axis=1))
    shallow, deep = (list(half) for half in halves(len(units)))
    slope = units[shallow].mean(0) - units[deep].mean(0) if shallow else np.zeros(units.shape[1])
    return Sensitivity(
        mean=mean,
        stderr=_floats(standard_error(units, axis=1)),
        covariance=_covariance(units),
        contenders=sorted({vulnerable, *contenders.tolist()}),
        shallow_minus_deep_stderr=_float(standard_error(slope, axis=0)),
        rank_stability=rank_stability(values, seed),
        by_task={
            task: _floats(values[:, :, members].mean((1, 2)).clip(0, 1)) for task, members in by_task(tasks).items()
        },
        **facts,
    )


def by_task(tasks: Sequence[str]) -> dict[str, np.ndarray]:
    """Indices of the probes of each task, tasks in the order in which they first appear."""
    return {task: np.flatnonzero([other == task for other in tasks]) for task in dict.fromkeys(tasks)}


def _covariance(units: np.ndarray) -> list[list[float]] | None:
    """Lower triangle of the covariances of the layers' means; `None` where there is a single unit."""
    if units.shape[1] < 2:
        return None
    covariance = np.atleast_2d(np.cov(units)) / units.shape[1]
    return [_floats(row[: layer + 1]) for layer, row in enumerate(covariance)]


def _float(value: SupportsFloat) -> float:
    # Seven digits are more than any of these numbers mean, and keep a report of a thousand probes small.
    return float(f"{float(value):.7g}")


def _floats(values: np.ndarray) -> list[float]:
    return [_float(value) for value in values]
