"""Negative controls of the lens: what a rise is worth that the targets of other probes show as well."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from torch import nn

from ..config import DiagnosisConfig
from ..modeling import ModelParts
from ..modeling.parts import NORM
from ..probes.encoding import EncodedProbe
from ..records import LensControl
from .patching import LayerForward, hidden_input, patched
from .statistics import standard_error
from .task_particle import task_particle_of


_TARGETS = 8  # of other probes, for each


def control_targets(probes: Sequence[EncodedProbe], seed: int) -> np.ndarray | None:
    """Targets of other probes for each probe: of its own task first, so that they are answers of the same kind.

    Args:
        probes (`Sequence[EncodedProbe]`): The probes.
        seed (`int`): Seed of the choice.

    Returns:
        `np.ndarray` or `None`: Token ids of shape `(probes, targets)`, none of them the probe's own target and no two of a
            row alike; `None` where all targets are one.
    """
    of_task: dict[str, list[int]] = {}
    for probe in probes:
        of_task.setdefault(probe.task, []).append(probe.target_id)
    every = np.array(sorted({probe.target_id for probe in probes}))
    kinds = {task: np.unique(targets) for task, targets in of_task.items()}
    count = min(_TARGETS, len(every) - 1)
    if count < 1:
        return None
    rng = np.random.default_rng(seed)
    rows = []
    for probe in probes:
        near = rng.permutation(kinds[probe.task])
        order = [int(token) for token in near if token != probe.target_id][:count]
        if len(order) < count:
            taken = {probe.target_id, *order}
            order += [int(token) for token in rng.permutation(every) if token not in taken][: count - len(order)]
        rows.append(order)
    return np.array(rows)


def summarise_control(
    curves: np.ndarray, control: np.ndarray, per_probe: Sequence[int | None], config: DiagnosisConfig
) -> LensControl:
    """What the targets of other probes show on the same prompts.

    Args:
        curves (`np.ndarray`): Lens probabilities of the probes' own targets, of shape `(probes, layers + 1)`.
        control (`np.ndarray`): Those of other probes' targets, of shape `(probes, targets, layers + 1)`.
        per_probe (`Sequence[int | None]`): The task particle of each probe.
        config ([`DiagnosisConfig`]): Holds `rise` and `min_probability`.

    Returns:
        [`LensControl`]: The control.
    """
    rises, others = np.diff(curves, axis=1), np.diff(control, axis=2)
    marked = rises.mean(0) >= config.rise * curves.mean(0).max()
    # By rank and not by size: a few probes with a large rise would decide a mean. 1/2 is what chance gives.
    own = rises[:, None]
    ahead = ((own > others) + 0.5 * (own == others)).mean(1)
    alike = ahead.mean(0) <= 0.5 + 2 * standard_error(ahead, axis=0)
    particles = [(number, layer) for number, layer in enumerate(per_probe) if layer is not None]
    flat = control.reshape(-1, control.shape[-1])
    resolved = [task_particle_of(curve, config.rise, config.min_probability) is not None for curve in flat]
    by_probe = control.mean(1)
    return LensControl(
        targets=control.shape[1],
        mean_probability=_floats(by_probe.mean(0)),
        stderr=_floats(standard_error(by_probe, axis=0)),
        resolved=float(np.mean(resolved)),
        unsupported=sum(bool(rises[i, layer] <= others[i, :, layer].max()) for i, layer in particles),
        layers=np.flatnonzero(marked & alike).tolist(),
    )


def final_norm(parts: ModelParts) -> nn.Module | None:
    """The norm between the last layer and the head, or `None` where it cannot be told."""
    holders = {name.rpartition(".")[0] for name, owners in parts.owners.items() if owners == {NORM}}
    norms = [module for module in map(parts.model.get_submodule, holders) if "norm" in type(module).__name__.lower()]
    return norms[0] if len(norms) == 1 else None


@contextmanager
def left_out(norm: nn.Module) -> Iterator[None]:
    """A norm returns what it is given, for the duration of the body."""

    def unchanged(_: int, __: LayerForward) -> LayerForward:
        return lambda *args, **kwargs: hidden_input(args, kwargs)

    with patched([norm], unchanged):
        yield


def _floats(values: np.ndarray) -> list[float]:
    return [float(f"{value:.7g}") for value in values]
