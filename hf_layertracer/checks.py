"""Checks of settings. Each names the setting, what it was and what it may be."""

from __future__ import annotations

from collections.abc import Collection
from numbers import Integral
from typing import Any

from .errors import LayerTracerError


def one_of(name: str, value: Any, choices: Collection[str]) -> None:
    """Refuses everything but the choices."""
    if value not in choices:
        raise LayerTracerError(f"{name} must be one of {', '.join(choices)}, not {value!r}.")


def within(name: str, value: Any, low: float, high: float) -> None:
    """Refuses what does not lie above `low` and at most at `high`; NaN too."""
    if not low < value <= high:
        raise LayerTracerError(f"{name} must lie above {low} and at most at {high}, not at {value!r}.")


def positive(name: str, value: Any) -> None:
    """Refuses 0, negative numbers and NaN."""
    if not value > 0:
        raise LayerTracerError(f"{name} must be above 0, not {value!r}.")


def whole_number(name: str, value: Any, least: int = 1) -> None:
    """Refuses all but whole numbers of at least `least`; `None` stands for a setting that was not given."""
    if value is not None and (not isinstance(value, Integral) or isinstance(value, bool) or value < least):
        raise LayerTracerError(f"{name} must be a whole number of at least {least}, not {value!r}.")
