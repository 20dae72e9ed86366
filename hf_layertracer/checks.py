"""Checks of settings. Each names the setting, what it was and what it may be."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from numbers import Integral, Real
from types import UnionType
from typing import Any, get_args

from .errors import LayerTracerError


def one_of(name: str, value: Any, choices: Collection[str]) -> None:
    """Refuses everything but the choices."""
    if value not in choices:
        raise LayerTracerError(f"{name} must be one of {', '.join(choices)}, not {value!r}.")


def within(name: str, value: Any, low: float, high: float) -> None:
    """Refuses what does not lie above `low` and at most at `high`; NaN too."""
    if not _is_number(value) or not low < value <= high:
        raise LayerTracerError(f"{name} must lie above {low} and at most at {high}, not at {value!r}.")


def positive(name: str, value: Any) -> None:
    """Refuses 0, negative numbers and NaN."""
    if not _is_number(value) or not value > 0:
        raise LayerTracerError(f"{name} must be above 0, not {value!r}.")


def whole_number(name: str, value: Any, least: int = 1, most: int = 2**63 - 1) -> None:
    """Refuses all but whole numbers from `least` to `most`; `None` stands for a setting that was not given."""
    if value is None:
        return
    if not isinstance(value, Integral) or isinstance(value, bool) or int(value) < least:
        raise LayerTracerError(f"{name} must be a whole number of at least {least}, not {_shown(value)}.")
    if int(value) > most:
        raise LayerTracerError(f"{name} must be at most {most}, not {_shown(value)}.")


def as_meant(name: str, value: Any, hint: Any) -> Any:
    """Reads a number or a switch that came as text, from a file or a shell, where a setting takes no text.

    What no number can be (a list, a mapping, `None` where it is none of the choices) is refused here, once for all. A type
    of text is what a shell can give: such settings may take more from Python, and check it themselves.

    Args:
        name (`str`): The setting.
        value (`Any`): What was given.
        hint (`Any`): The setting's type.

    Returns:
        `Any`: The value in that type; what is no text, or may be text, as it is.

    Raises:
        LayerTracerError: The text is no such value, or the value cannot be the setting's.

    Example:

    ```python
    >>> from hf_layertracer.checks import as_meant
    >>> as_meant("freeze_ratio", "0.5", float), as_meant("repeats", "4", int | None)
    (0.5, 4)
    ```
    """
    kinds = set(get_args(hint)) if isinstance(hint, UnionType) else {hint}
    if kinds <= {bool, int, float, type(None)}:
        if isinstance(value, list | tuple | set | dict):
            raise LayerTracerError(f"{name} must be a single value, not {_shown(value)}.")
        if value is None and type(None) not in kinds:
            raise LayerTracerError(f"{name} must have a value, not None.")
    if not isinstance(value, str) or not kinds & {bool, int, float} or str in kinds:
        return value
    text = value.strip().lower()
    if text in ("none", "null", "") and type(None) in kinds:
        return None
    if bool in kinds:
        if text in _SWITCHES:
            return _SWITCHES[text]
        raise LayerTracerError(f"{name} must be true or false, not {_shown(value)}.")
    for kind, what in ((int, "a whole number"), (float, "a number")):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError as error:
                raise LayerTracerError(f"{name} must be {what}, not {_shown(value)}.") from error
    return value


def all_as_meant(settings: Any, hints: Mapping[str, Any]) -> None:
    """[`as_meant`] for all fields of a settings object.

    Args:
        settings (`Any`): The object.
        hints (`Mapping[str, Any]`): The types of its fields.

    Raises:
        LayerTracerError: A text is no value of its field's type.
    """
    for name, hint in hints.items():
        value = getattr(settings, name)
        meant = as_meant(name, value, hint)
        if meant is not value:
            setattr(settings, name, meant)


_SWITCHES = {"true": True, "yes": True, "false": False, "no": False}


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    """A value as errors show it: short, also where it is a number of more digits than Python writes."""
    try:
        return f"{value!r:.60}"
    except ValueError:
        return "a number of thousands of digits"
