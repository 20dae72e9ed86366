"""The record of a report: what was measured, what was decided and what came of it. Knows nothing of models or files.

Layers are numbered 0 to L - 1 everywhere. Every list "per layer" has L entries; lens curves have L + 1, the embedding's
first. Figures that follow from others (relative depth, shallow minus deep, the vulnerable layer, before against after)
are defined here, once, and read by everyone else.
"""

from .base import SCHEMA_VERSION, Measured, Record, halves, relative_depth
from .diagnosis import (
    ContextSensitivity,
    Diagnosis,
    MaxRatio,
    Scores,
    TaskParticle,
    TaskParticleSummary,
)
from .lens import Lens, LensControl, LensWithoutNorm
from .model import LayerFacts, ModelFacts
from .plan import LayerPlan, PlanRecord, Savings
from .probes import ProbeFacts, ProbeRecord
from .report import Change, ReportData
from .sensitivity import Sensitivity
from .training import TrainingOutcome


__all__ = [
    "SCHEMA_VERSION",
    "Change",
    "ContextSensitivity",
    "Diagnosis",
    "LayerFacts",
    "LayerPlan",
    "Lens",
    "LensControl",
    "LensWithoutNorm",
    "MaxRatio",
    "Measured",
    "ModelFacts",
    "PlanRecord",
    "ProbeFacts",
    "ProbeRecord",
    "Record",
    "ReportData",
    "Savings",
    "Scores",
    "Sensitivity",
    "TaskParticle",
    "TaskParticleSummary",
    "TrainingOutcome",
    "halves",
    "relative_depth",
]
