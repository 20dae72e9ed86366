"""Trying an allocation: a plan from a report's measurements, what it costs, and the text to use it elsewhere."""

from __future__ import annotations

import math
import re
import shlex
from typing import Any, get_type_hints

import yaml
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from .. import planning
from ..errors import LayerTracerError
from ..planning.strategies import STRATEGIES, all_options
from ..records import LayerPlan, ReportData
from ..text import compact_ranges


# All that need neither weights nor a hybrid, the papers' rule first.
OFFERED = {
    name: strategy
    for name, strategy in sorted(STRATEGIES.items(), key=lambda item: item[0] != "freeze-deep")
    if not strategy.needs & {"weights", "new mixers"}
}
# Patterns of parameter names, which the library takes too, have no place on the page.
_RANGES = re.compile(r"[\d\s,:-]*")
_SPAN = re.compile(r"\d{1,6}(-\d{1,6})?")
_MOST_LAYERS = 100_000
SNIPPETS = ("Python", "YAML", "CLI", "axolotl", "LLaMA-Factory")


def try_allocation(report: ReportData, strategy: str, **controls: Any) -> LayerPlan:
    """Makes a plan from what a page's controls say.

    Args:
        report ([`ReportData`]): The report with the measurements.
        strategy (`str`): One of `OFFERED`.
        controls: Values by name of the option, in the units that the page asks in. Those of other strategies' options
            are left out, and empty ones keep their defaults.

    Returns:
        [`LayerPlan`]: The plan.

    Raises:
        LayerTracerError: The strategy is not offered here, or makes no plan of this.
    """
    if strategy not in OFFERED:
        raise LayerTracerError(f"The strategy {strategy!r} is not offered here.")
    taken = {name: controls[name] for name in OFFERED[strategy].option_names if controls.get(name) not in (None, "")}
    if strategy == "explicit" and not taken:
        raise LayerTracerError("Choose at least one layer to train.")
    if not _RANGES.fullmatch(taken.get("train_layers", "")):
        raise LayerTracerError("Name layers by numbers and ranges, such as 0-7,12.")
    return planning.make_plan(report, strategy, **{name: _from_control(name, value) for name, value in taken.items()})


def _from_control(name: str, value: Any) -> Any:
    """A control's value as the option: whole units, and without what a slider adds in the last digit."""
    owner, field = all_options()[name]
    _, size = field.metadata["unit"] or ("", 1)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if get_type_hints(owner)[name] in (int, int | None) and math.isfinite(value):
        return round(value * size)
    return round(value * size, 4)


def usual_budget(report: ReportData) -> float:
    """A budget that every model can keep: half of what full training trains, in millions of parameters.

    Args:
        report ([`ReportData`]): The report of the model.

    Returns:
        `float`: Millions, to three digits.
    """
    return float(f"{planning.make_plan(report, 'full').savings.trainable_parameters_full / 2e6:.3g}")


def toggled(layers: str, layer: int) -> str:
    """Ranges of the layers that train after a click on one of them.

    Args:
        layers (`str`): Those that train, as the page shows them.
        layer (`int`): The one that was clicked.

    Returns:
        `str`: Such as `"0-7,12"`.
    """
    spans = [part.partition("-") for part in layers.split(",") if _SPAN.fullmatch(part.strip())]
    trained = {index for low, _, high in spans for index in range(int(low), min(int(high or low), _MOST_LAYERS) + 1)}
    left = sorted(trained ^ {layer})
    return compact_ranges(left).replace(" ", "") if left else ""


def snippet(plan: LayerPlan, report: ReportData, form: str) -> str:
    """The text that puts a plan to use elsewhere.

    Whatever a report holds, the text is safe to paste: strings in it are quoted for the language that they stand in.

    Args:
        plan ([`LayerPlan`]): The plan, from [`try_allocation`].
        report ([`ReportData`]): The report that it was made from.
        form (`str`): One of `SNIPPETS`.

    Returns:
        `str`: Python, YAML or a command line.

    Raises:
        LayerTracerError: The other trainer cannot express this plan, or the form is unknown.
    """
    if form in ("axolotl", "LLaMA-Factory"):
        return planning.export_plan(plan, report.model, form.lower())
    settings = _settings(plan)
    if form == "Python":
        arguments = ", ".join(f"{name}={value!r}" for name, value in settings.items())
        hint = '# The trainer measures the model itself; report="FOLDER_OR_REPO" takes a report\'s measurements.\n'
        return (
            f"{hint if _is_measured(plan) else ''}from hf_layertracer import LayerTracerConfig, LayerTracerTrainer\n\n"
            "trainer = LayerTracerTrainer(\n"
            "    model=model,\n    args=args,\n    train_dataset=dataset,\n    processing_class=tokenizer,\n"
            f"    layertracer_config=LayerTracerConfig({arguments}),\n"
            ")\n"
            "trainer.train()\n"
        )
    if form == "YAML":
        return "# LayerTracerConfig, for HfArgumentParser\n" + yaml.safe_dump(settings, sort_keys=False)
    if form == "CLI":
        known = report.model.id if _is_public(report.model.id) and not _is_measured(plan) else None
        words = ["layertracer", "plan", known or "REPORT", "--strategy", plan.strategy]
        for name, value in settings.items():
            if name != "strategy":
                option = name.replace("_", "-")
                words += (
                    [f"--{'' if value else 'no-'}{option}"] if isinstance(value, bool) else [f"--{option}", str(value)]
                )
        return shlex.join(words) + "\n"
    raise LayerTracerError(f"Unknown form {form!r}. There are: {', '.join(SNIPPETS)}.")


def _is_measured(plan: LayerPlan) -> bool:
    """Whether its strategy needs a report. One that is not known here may."""
    return plan.strategy not in STRATEGIES or "measurements" in STRATEGIES[plan.strategy].needs


def _settings(plan: LayerPlan) -> dict[str, Any]:
    """The fields of [`LayerTracerConfig`] that make the same plan."""
    settings = {"strategy": plan.strategy, **plan.options}
    if "train_layers" in settings:
        settings["train_layers"] = compact_ranges(plan.trained_layers).replace(" ", "")
    return settings


def _is_public(model_id: str | None) -> bool:
    try:
        validate_repo_id(model_id or "")
    except HFValidationError:
        return False
    return "/" in (model_id or "")
