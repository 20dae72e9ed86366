"""How to choose the layers that train: one module a strategy.

A module here that has a `STRATEGY` adds it, with its options, to [`make_plan`], [`LayerTracerConfig`], the command line
and the viewer.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import Field, fields

from ...errors import LayerTracerError
from .base import Change, Choice, Moment, NoOptions, PlanInputs, Strategy, option
from .changing import ChangingOptions


__all__ = [
    "STRATEGIES",
    "Change",
    "ChangingOptions",
    "Choice",
    "Moment",
    "NoOptions",
    "PlanInputs",
    "Strategy",
    "all_options",
    "option",
    "strategy_named",
]


def _discover() -> dict[str, Strategy]:
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    return {module.STRATEGY.name: module.STRATEGY for module in modules if hasattr(module, "STRATEGY")}


STRATEGIES: dict[str, Strategy] = _discover()


def strategy_named(name: str) -> Strategy:
    """Looks a strategy up.

    Args:
        name (`str`): Its name.

    Returns:
        [`Strategy`]: The strategy.

    Raises:
        LayerTracerError: There is none of this name; the message lists those that there are.
    """
    if name not in STRATEGIES:
        raise LayerTracerError(f"Unknown strategy {name!r}. There are: {', '.join(STRATEGIES)}.")
    return STRATEGIES[name]


def all_options() -> dict[str, tuple[type, Field]]:
    """Every option of every strategy, once.

    Returns:
        `dict[str, tuple[type, Field]]`: By name: an options dataclass that has it, and its field there.

    Raises:
        TypeError: Two strategies mean different things by one name.
    """
    found: dict[str, tuple[type, Field]] = {}
    for strategy in STRATEGIES.values():
        for own in fields(strategy.options):
            owner, known = found.setdefault(own.name, (strategy.options, own))
            if (known.type, known.default, known.metadata) != (own.type, own.default, own.metadata):
                raise TypeError(
                    f"{owner.__name__} and {strategy.options.__name__} differ in type, default or help of {own.name}."
                )
    return found
