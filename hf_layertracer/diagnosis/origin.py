"""Where a report comes from, and the report of a model that could not be measured."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from ..config import DiagnosisConfig
from ..modeling import ModelParts
from ..modeling.facts import model_facts
from ..probes.encoding import probes_hash
from ..records import ProbeFacts
from ..report import LayerTracerReport


def origin() -> dict[str, Any]:
    """When and with what a report is made.

    Returns:
        `dict[str, Any]`: The fields `created` and `versions` of a report.
    """
    libraries = ("hf_layertracer", "torch", "transformers", "accelerate")
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in libraries}},
    }


def unmeasured_report(parts: ModelParts, config: DiagnosisConfig, reason: str) -> LayerTracerReport:
    """The report of a model whose layers were found, but could not be measured.

    Args:
        parts ([`ModelParts`]): The model and its layers.
        config ([`DiagnosisConfig`]): The settings that it would have been measured with.
        reason (`str`): Why it was not.

    Returns:
        [`LayerTracerReport`]: What the model is made of, without a diagnosis.
    """
    return LayerTracerReport(
        **origin(),
        model=model_facts(parts),
        settings=config,
        probes=ProbeFacts(count=0, sha256=probes_hash([]), tasks={}, items=[]),
        diagnoses=[],
        notes=[f"Nothing was measured. {reason}"],
    )
