"""Which layers train: strategies, plans, what they cost, putting them into force, other trainers' formats.

Its names are imported when they are first used: looking up a strategy does not wait for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names


_MODULES = {
    "apply": ["AppliedPlan", "apply_plan"],
    "config": ["LayerTracerConfig", "PlanConfig"],
    "export": ["EXPORT_FORMATS", "export_plan"],
    "plan": ["configured_plan", "make_plan", "read_plan"],
    "strategies": ["STRATEGIES", "strategy_named"],
}
__all__ = [
    "EXPORT_FORMATS",
    "STRATEGIES",
    "AppliedPlan",
    "LayerTracerConfig",
    "PlanConfig",
    "apply_plan",
    "configured_plan",
    "export_plan",
    "make_plan",
    "read_plan",
    "strategy_named",
]
__getattr__ = lazy_names(__name__, _MODULES)

if TYPE_CHECKING:
    from .apply import AppliedPlan, apply_plan
    from .config import LayerTracerConfig, PlanConfig
    from .export import EXPORT_FORMATS, export_plan
    from .plan import configured_plan, make_plan, read_plan
    from .strategies import STRATEGIES, strategy_named
