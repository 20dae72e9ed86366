"""The lens: what the model would answer if it stopped after each layer, and what that is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .base import Count, Error, NonNegative, Probability, Record, is_long


class LensControl(Record):
    """The lens on the same prompts with the targets of other probes: what a rise of the lens probability is worth.

    Args:
        targets (`int`): Targets of others for each probe; of its own task where that has enough.
        mean_probability (`list[float]`): Their mean lens probability, L + 1 values, the embedding's first.
        stderr (`list[float]`): Standard errors of these means over probes.
        resolved (`float`): Fraction of their curves that have a task particle by the first rule.
        unsupported (`int`):
            Resolved probes at whose task particle the target of another rises at least as much as their own.
        layers (`list[int]`):
            Layers at which the mean curve rises by as much as marks a task particle, although a probe's own target rises
            more than those of others no more often than by chance, within two standard errors.
    """

    targets: Count
    mean_probability: list[Probability]
    stderr: list[Error]
    resolved: Probability
    unsupported: Count
    layers: list[Count] = []


class LensWithoutNorm(Record):
    """The lens with the final norm left out: whether the curve is owed to the norm.

    Args:
        mean_probability (`list[float]`): Mean lens probability of the targets, L + 1 values, the embedding's first.
        layer (`float`, *optional*): The task particle by the first rule; `None` where no probe is resolved.
        unresolved (`int`): Number of probes without one.
    """

    mean_probability: list[Probability]
    layer: NonNegative | None
    unresolved: Count


class Lens(Record):
    """What the model would answer if it stopped after each layer.

    Args:
        valid (`bool`): Whether the reading at the last layer is the model's own output.
        reason (`str`, *optional*): Why it is not.
        error (`float`, *optional*): Largest difference between the two, as a fraction of the largest probability.
        mean_probability (`list[float]`): Mean lens probability of the targets, L + 1 values, the embedding's first.
        stderr (`list[float]`): Standard errors of these means over probes.
        by_task (`dict[str, list[float]]`): The mean curve of each task.
        per_probe (`list[list[float]]`): The curve of each probe.
        top_tokens (`list[list[str]]`, *optional*): The likeliest token at each layer, for each probe.
        likely (`list[list[list[tuple[str, float]]]]`, *optional*):
            The three likeliest tokens with their probabilities at each layer, for each probe; `None` where there are too
            many readings to keep them.
        control ([`LensControl`], *optional*): The same with the targets of other probes; `None` where all are one.
        without_norm ([`LensWithoutNorm`], *optional*):
            The same without the final norm; `None` where the model has none that can be left out.
    """

    valid: bool
    reason: str | None = None
    error: NonNegative | None = None
    mean_probability: list[Probability] = []
    stderr: list[Error] = []
    by_task: dict[str, list[Probability]] = {}
    per_probe: list[list[Probability]] = []
    top_tokens: list[list[str]] | None = None
    likely: list[list[list[tuple[str, Probability]]]] | None = None
    control: LensControl | None = None
    without_norm: LensWithoutNorm | None = None

    @property
    def stderr_known(self) -> bool:
        """Whether `stderr` means anything: that of a single probe is written as 0, but it is not known."""
        return any(self.stderr)

    def named_layers(self) -> list[float]:
        """Every layer that the controls point at."""
        without = [] if self.without_norm is None or self.without_norm.layer is None else [self.without_norm.layer]
        return [*without, *(self.control.layers if self.control is not None else [])]

    def check(self, num_layers: int, num_probes: int, whole: bool) -> None:
        """Refuses curves of another length than the model and the probes have.

        Args:
            num_layers (`int`): Layers of the model.
            num_probes (`int`): Probes of the report.
            whole (`bool`): Whether no list may be missing.

        Raises:
            ValueError: Something does not fit.
        """
        if not self.mean_probability:
            if self.per_probe or self.by_task:
                raise ValueError("lens has curves of probes or tasks, but no mean_probability")
        else:
            is_long("lens.mean_probability", self.mean_probability, num_layers + 1)
            is_long("lens.stderr", self.stderr, num_layers + 1, or_empty=not whole)
            is_long("lens.per_probe", self.per_probe, num_probes, or_empty=not whole)
        if self.control is not None:
            is_long("lens.control.mean_probability", self.control.mean_probability, num_layers + 1)
            is_long("lens.control.stderr", self.control.stderr, num_layers + 1)
        if self.without_norm is not None:
            is_long("lens.without_norm.mean_probability", self.without_norm.mean_probability, num_layers + 1)
        if self.top_tokens is not None:
            is_long("lens.top_tokens", self.top_tokens, len(self.per_probe))
        if self.likely is not None:
            is_long("lens.likely", self.likely, len(self.per_probe))
        tokens: list[Sequence[Any]] = [*(self.top_tokens or []), *(self.likely or [])]
        curves: list[Sequence[Any]] = [*self.by_task.values(), *self.per_probe, *tokens]
        for curve in curves:
            is_long("a lens curve", curve, num_layers + 1)
