"""Controlled trials: which allocation pays, on one's own model and data."""

from .arms import ArmConfig
from .config import ObjectiveConfig, TrainConfig, TrialsConfig
from .halving import HalvingResult, run_halving
from .results import TrialsResult
from .run import run_trials


__all__ = [
    "ArmConfig",
    "HalvingResult",
    "ObjectiveConfig",
    "TrainConfig",
    "TrialsConfig",
    "TrialsResult",
    "run_halving",
    "run_trials",
]
