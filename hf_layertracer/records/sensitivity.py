"""Layer Sensitivity, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Collection
from statistics import fmean

from pydantic import computed_field

from .base import Bits, Count, Error, Measured, Real, Record, halves


class Sensitivity(Record):
    """How far a perturbation of each layer moves the output: Jensen-Shannon divergence in bits, from 0 to 1.

    Args:
        mean (`list[float]`): Layer Sensitivity per layer.
        stderr (`list[float]`):
            Standard errors of these means. Of random perturbations they say how far other draws would move the mean over
            these very probes, where each probe has several draws; otherwise how far other probes would, too.
        covariance (`list[list[float]]`, *optional*):
            Covariances of these means, from which the standard error of any difference between layers follows: row l
            holds those with the layers 0 to l. `None` where they are not known: of a single draw, and in reports of
            schema version 1.
        contenders (`list[int]`, *optional*):
            The layers that cannot be told from the vulnerable one, itself among them: their difference is below two
            standard errors of the difference. `None` where that was not recorded; of a single draw, nothing is known of
            the others.
        shallow_minus_deep_stderr (`float`, *optional*): Standard error of `shallow_minus_deep`.
        rank_stability (`float`, *optional*): Mean rank correlation between the layers' means on halves of the probes.
        by_task (`dict[str, list[float]]`): Layer Sensitivity on the probes of each task.
        draws (`int`): Number of perturbations of each layer: probes times repeats.
        repeats (`int`): Random draws per probe.
        path (`str`):
            `"replay"` where only the layers after the perturbed one ran, `"full-forward"` where the whole model did, and
            `"mixed"` where the layers could be replayed for prompts of some lengths and not of others.
        path_reason (`str`, *optional*): Why the layers could not be replayed.
        massive_dimensions (`int`):
            The means are corrected for how often the masks that were drawn hit so many of each layer's most massive
            dimensions; 0 where they are plain means.
        compute_dtype (`str`, *optional*): What layers were replayed in, where it was not the model's own data type.
        compute_error (`float`, *optional*): Mean difference from the model's own data type over a sample of draws, in bits.
        compute_problem (`str`, *optional*): Why another data type was tried and not used.
        stopped (`str`, *optional*): Why no more draws were measured, where it was left to the measurement.
    """

    mean: list[Bits]
    stderr: list[Error]
    covariance: list[list[Real]] | None = None
    contenders: list[Count] | None
    shallow_minus_deep_stderr: Error | None
    rank_stability: Real | None
    by_task: dict[str, list[Bits]]
    draws: Count
    repeats: Count
    path: str
    path_reason: str | None = None
    massive_dimensions: Count = 0
    compute_dtype: str | None = None
    compute_error: Error | None = None
    compute_problem: str | None = None
    stopped: str | None = None

    # Written for readers of the JSON, and derived anew when it is read.
    @computed_field  # type: ignore[prop-decorator]
    @property
    def vulnerable_layer(self) -> int:
        """The layer with the largest mean; of equals, the shallowest."""
        return self.mean.index(max(self.mean))

    @property
    def highest(self) -> float:
        """Layer Sensitivity of the vulnerable layer."""
        return max(self.mean)

    @property
    def rivals(self) -> list[int]:
        """The contenders without the vulnerable layer; empty where they are not known."""
        return [layer for layer in self.contenders or [] if layer != self.vulnerable_layer]

    @property
    def stderr_known(self) -> bool:
        """Whether `stderr` means anything: that of a single draw is written as 0, but it is not known."""
        return self.draws > 1

    @property
    def shallow_minus_deep(self) -> float:
        """Mean of the shallow half of the layers minus that of the deep half, as [`halves`] cuts them."""
        shallow, deep = halves(len(self.mean))
        return self.mean_over(shallow) - self.mean_over(deep) if shallow else 0.0

    def mean_over(self, layers: Collection[int]) -> float:
        """Mean Layer Sensitivity of some layers.

        Args:
            layers (`Collection[int]`): Their indices, at least one.

        Returns:
            `float`: Bits.
        """
        return fmean(self.mean[layer] for layer in layers)

    def difference(self, layers: Collection[int], others: Collection[int]) -> Measured:
        """Mean Layer Sensitivity of some layers minus that of others, with the standard error of this very difference.

        Args:
            layers (`Collection[int]`): The first layers, at least one.
            others (`Collection[int]`): The layers to subtract, at least one.

        Returns:
            [`Measured`]: Bits; without a standard error where the report does not hold the covariances.
        """
        value = self.mean_over(layers) - self.mean_over(others)
        if self.covariance is None:
            return Measured(value, None)
        weights = [0.0] * len(self.mean)
        for layer in layers:
            weights[layer] += 1 / len(layers)
        for layer in others:
            weights[layer] -= 1 / len(others)
        # Twice the lower triangle, less the diagonal that is then counted twice.
        variance = sum(
            weights[row] * weights[column] * value * (1 if row == column else 2)
            for row, values in enumerate(self.covariance)
            for column, value in enumerate(values)
            if weights[row] and weights[column]
        )
        return Measured(value, math.sqrt(max(0.0, variance)))
