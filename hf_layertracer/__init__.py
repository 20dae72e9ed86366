"""Measure what each layer of a language model does, and train the layers worth training."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING


# Importing the package imports none of its modules: torch, transformers and matplotlib come with what is first used.
_EXPORTS = {
    "errors": ["LayerTracerError"],
    "config": ["DiagnosisConfig"],
    "estimate": ["estimate_training"],
    "probes": ["Probe", "load_probes"],
    "diagnosis.diagnose": ["diagnose"],
    "hybrid.build": ["build_hybrid"],
    "hybrid.propose": ["propose_hybrid"],
    "hybrid.push": ["push_hybrid"],
    "hybrid.recipe": ["HybridRecipe"],
    "hub": ["compare_reports", "list_reports", "push_report"],
    "report": ["LayerTracerReport"],
    "records": ["LayerPlan"],
    "planning.apply": ["apply_plan"],
    "planning.config": ["LayerTracerConfig"],
    "planning.export": ["export_plan"],
    "planning.plan": ["make_plan"],
    "viewer.space": ["push_space"],
    "training": ["LayerTracerCallback", "LayerTracerMixin", "LayerTracerTrainer"],
    "trials": ["TrialsConfig", "run_trials"],
}
_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names}

__version__ = "0.1.0"
__all__ = sorted(_MODULE_OF)

if TYPE_CHECKING:
    from .config import DiagnosisConfig
    from .diagnosis.diagnose import diagnose
    from .errors import LayerTracerError
    from .estimate import estimate_training
    from .hub import compare_reports, list_reports, push_report
    from .hybrid.build import build_hybrid
    from .hybrid.propose import propose_hybrid
    from .hybrid.push import push_hybrid
    from .hybrid.recipe import HybridRecipe
    from .planning import LayerTracerConfig, apply_plan, export_plan, make_plan
    from .probes import Probe, load_probes
    from .records import LayerPlan
    from .report import LayerTracerReport
    from .training import LayerTracerCallback, LayerTracerMixin, LayerTracerTrainer
    from .trials import TrialsConfig, run_trials
    from .viewer.space import push_space


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
