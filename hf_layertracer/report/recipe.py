"""Three lines of Python that repeat a report."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

from ..config import DiagnosisConfig
from ..planning.config import LayerTracerConfig
from ..probes.builtin import BUILTIN, builtin_probes
from ..records import ReportData


# These depend on the machine, not on what is measured.
_OWN_TO_A_MACHINE = {"diagnosis_batch_size", "memory_budget"}
# A report may be someone else's: no other string becomes code.
_HARMLESS = re.compile(r"[\w.,:/*+^$|() -]{0,200}", re.ASCII)


def recipe(report: ReportData) -> str:
    """Writes code that repeats a report, given the model, its tokenizer and the data.

    Args:
        report ([`ReportData`]): The report.

    Returns:
        `str`: Three lines.
    """
    settings = {name: value for name, value in report.settings.to_dict().items() if name not in _OWN_TO_A_MACHINE}
    if report.training is None or report.plan is None:
        probes = _reading(asked_builtin_probes(report) or "probes.jsonl")
        return "\n".join(
            [
                "from hf_layertracer import DiagnosisConfig, diagnose, load_probes",
                f"config = {_call(DiagnosisConfig, settings)}",
                f"report = diagnose(model, {probes}, tokenizer=tokenizer, config=config)",
            ]
        )
    options = dict(report.plan.options)
    layers = options.get("train_layers")
    if layers is not None:
        options["train_layers"] = ",".join(map(str, layers)) if isinstance(layers, list) else layers
    builtin = asked_builtin_probes(report)
    if report.is_measured and not builtin:
        options["num_probes"] = report.probes.count
    settings = {"strategy": report.plan.strategy, **options, **settings}
    if report.is_repeated and report.latest.step == report.training.steps:
        settings["diagnose_after"] = True
    names = ["LayerTracerConfig", "LayerTracerTrainer", *(["load_probes"] if builtin else [])]
    arguments = ["model", "args", "train_dataset=dataset", "processing_class=tokenizer", "layertracer_config=config"]
    arguments += [f"probes={_reading(builtin)}"] if builtin else []
    return "\n".join(
        [
            f"from hf_layertracer import {', '.join(names)}",
            f"config = {_call(LayerTracerConfig, settings)}",
            f"LayerTracerTrainer({', '.join(arguments)}).train()",
        ]
    )


def asked_builtin_probes(report: ReportData) -> str | None:
    """The name of the set that ships with the package and is the report's; `None` where no set is."""
    asked = [(item.prompt, item.target, item.task) for item in report.probes.items]
    for name in BUILTIN:
        ours = builtin_probes(name)
        if len(asked) == len(ours) and all(
            prompt is not None and target is not None and str(probe.prompt).endswith(prompt) and probe.task == task
            for probe, (prompt, target, task) in zip(ours, asked, strict=True)
        ):
            return name
    return None


def _reading(source: str) -> str:
    return "load_probes()" if source == "builtin" else f'load_probes("{source}")'


def _call(settings_class: type, settings: dict[str, Any]) -> str:
    """A call of a settings class with what differs from its defaults."""
    defaults = {field.name: field.default for field in fields(settings_class)}
    written = [
        f"{name}={value!r}"
        for name, value in settings.items()
        if name in defaults and value != defaults[name] and _is_literal(value)
    ]
    return f"{settings_class.__name__}({', '.join(written)})"


def _is_literal(value: Any) -> bool:
    return isinstance(value, bool | int | float) or (isinstance(value, str) and bool(_HARMLESS.fullmatch(value)))
