"""What a model can do: loss on text, probes and benchmark tasks."""

from .config import EvaluationConfig
from .evaluate import check_evaluation, evaluate_model
from .result import EvaluationItem, EvaluationResult


__all__ = ["EvaluationConfig", "EvaluationItem", "EvaluationResult", "check_evaluation", "evaluate_model"]
