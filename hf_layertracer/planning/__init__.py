from .apply import AppliedPlan, apply_plan
from .export import EXPORT_FORMATS, export_plan
from .plan import make_plan
from .strategies import STRATEGIES


__all__ = ["EXPORT_FORMATS", "STRATEGIES", "AppliedPlan", "apply_plan", "export_plan", "make_plan"]
