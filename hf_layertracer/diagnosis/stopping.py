"""When a measurement with random draws has seen enough of them."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ..config import DiagnosisConfig
from .estimation import Estimate
from .summary import difference_error


# More than the two of a single comparison: the difference is looked at several times.
_ERRORS_APART = 3


class StoppingRule(Protocol):
    """Decides after each look at the draws so far."""

    def __call__(self, estimate: Estimate, *, at_the_end: bool) -> str | None:
        """Why to stop, or `None` to go on. Where no draws are left, there is always a reason."""
        ...


def stopping_rule(config: DiagnosisConfig, num_layers: int) -> StoppingRule | None:
    """The rule that the settings ask for.

    Args:
        config ([`DiagnosisConfig`]): Holds `until_stderr` and `until_boundary`.
        num_layers (`int`): How many layers the model has.

    Returns:
        `Callable` or `None`: The rule; `None` where the number of draws is fixed.
    """
    if config.until_stderr is None and config.until_boundary is None:
        return None
    boundary = None if config.until_boundary is None else round(config.until_boundary * num_layers)

    def decide(estimate: Estimate, *, at_the_end: bool) -> str | None:
        draws, found, reached = estimate.values.shape[1], [], []
        if draws < 2:
            return "at the limit of 1 draw, whose standard error is not known" if at_the_end else None
        if config.until_stderr is not None:
            largest = float(estimate.stderr.max())
            reached.append(largest <= config.until_stderr)
            found.append(
                f"the largest standard error is {largest:.2g}, {'not above' if reached[-1] else 'above'} "
                f"{config.until_stderr:g}"
            )
        if boundary is not None:
            layers = range(boundary), range(boundary, num_layers)
            difference, error = 0.0, 0.0
            if all(layers):
                shallow, deep = (float(np.mean(estimate.mean[list(side)])) for side in layers)
                difference, error = shallow - deep, difference_error(estimate, *layers)
            reached.append(abs(difference) > _ERRORS_APART * error)
            found.append(
                f"the layers before and from {boundary} on differ by {difference:+.3f} ± {error:.3f} bits, which is "
                f"{'beyond' if reached[-1] else 'within'} three standard errors"
            )
        if all(reached):
            return f"after {draws} draws: {' and '.join(found)}"
        return f"at the limit of {draws} draws: {' and '.join(found)}" if at_the_end else None

    return decide
