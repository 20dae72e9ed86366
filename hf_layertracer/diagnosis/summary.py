"""From arrays of measurements to the summaries in a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsFloat

import numpy as np

from ..config import DiagnosisConfig
from ..records import ContextSensitivity, Lens, MaxRatio, Sensitivity, TaskParticle, TaskParticleSummary, halves
from .estimation import Estimate
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
            interval=bootstrap_median_interval(resolved, config.diagnosis_seed),
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


def summarise_sensitivity(estimate: Estimate, tasks: Sequence[str], seed: int, **facts) -> Sensitivity:
    """Means, standard errors and what can be concluded from them.

    Args:
        estimate ([`Estimate`]): The means over all draws, which are those of all probes, then all of them again.
        tasks (`Sequence[str]`): Task of each of these probes.
        seed (`int`): Seed of the random halves behind the rank stability.
        facts: The fields of [`Sensitivity`] that say how the values came about.

    Returns:
        [`Sensitivity`]: The sensitivity part of a report.
    """
    values = estimate.values.reshape(len(estimate.mean), -1, len(tasks))
    mean = _floats(estimate.mean.clip(0, 1))
    vulnerable = mean.index(max(mean))
    behind = estimate.mean[vulnerable] - estimate.mean
    errors = np.linalg.norm(estimate.parts[vulnerable] - estimate.parts, axis=1)
    return Sensitivity(
        mean=mean,
        stderr=_floats(estimate.stderr),
        covariance=_covariance(estimate),
        contenders=sorted({vulnerable, *np.flatnonzero(behind <= 2 * errors).tolist()}),
        shallow_minus_deep_stderr=_float(difference_error(estimate, *halves(len(mean)))),
        rank_stability=rank_stability(values, seed),
        by_task={
            task: _floats(values[:, :, members].mean((1, 2)).clip(0, 1)) for task, members in by_task(tasks).items()
        },
        **facts,
    )


def difference_error(estimate: Estimate, layers: Sequence[int], others: Sequence[int]) -> float:
    """Standard error of the difference between the means of some layers and of others; 0 where there are none."""
    if not layers or not others:
        return 0.0
    return float(np.linalg.norm(estimate.parts[list(layers)].mean(0) - estimate.parts[list(others)].mean(0)))


def by_task(tasks: Sequence[str]) -> dict[str, np.ndarray]:
    """Indices of the probes of each task, tasks in the order in which they first appear."""
    return {task: np.flatnonzero([other == task for other in tasks]) for task in dict.fromkeys(tasks)}


def _covariance(estimate: Estimate) -> list[list[float]] | None:
    """Lower triangle of the covariances of the layers' means; `None` where there is a single draw."""
    if estimate.values.shape[1] < 2:
        return None
    return [_floats(row[: layer + 1]) for layer, row in enumerate(estimate.covariance)]


def _float(value: SupportsFloat) -> float:
    # Seven digits are more than any of these numbers mean, and keep a report of a thousand probes small.
    return float(f"{float(value):.7g}")


def _floats(values: np.ndarray) -> list[float]:
    return [_float(value) for value in values]
