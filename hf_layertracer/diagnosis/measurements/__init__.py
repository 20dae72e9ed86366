"""What is measured in a diagnosis: one measurement a module, and the list of them."""

from __future__ import annotations

from ...config import DiagnosisConfig
from .answers import Answers
from .base import Batch, Measurement, Subject
from .block_influence import BlockInfluence
from .context import Context
from .lens import LensCurves
from .noise_floor import NoiseFloor
from .sensitivity import LayerSensitivity


MEASUREMENTS: list[type[Measurement]] = [
    Answers,
    NoiseFloor,
    LensCurves,
    BlockInfluence,
    Context,
    LayerSensitivity,
]

__all__ = ["MEASUREMENTS", "Batch", "Measurement", "Subject", "chosen_measurements"]


def chosen_measurements(config: DiagnosisConfig) -> list[Measurement]:
    """The measurements that the settings ask for.

    Args:
        config ([`DiagnosisConfig`]): The settings.

    Returns:
        `list[Measurement]`: New measurements, in the order in which they look at a batch.
    """
    return [measurement for kind in MEASUREMENTS for measurement in kind.chosen(config)]
