from .apply import AppliedPlan, apply_plan
from .export import EXPORT_FORMATS, export_plan
from .plan import checked_strategy, make_plan
from .strategies import STRATEGIES


__all__ = ["EXPORT_FORMATS", "STRATEGIES", "AppliedPlan", "apply_plan", "checked_strategy", "export_plan", "make_plan"]
