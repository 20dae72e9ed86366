"""Trying an allocation: a plan from a report's measurements, what it costs, and the text to use it elsewhere."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import yaml
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from ..errors import LayerTracerError
from ..planning import export_plan, make_plan
from ..records import LayerPlan, ReportData
from ..text import compact_ranges


_COUNTS_LIMIT = 5_000_000
# All that need no weights; "explicit" is what clicking on layers makes.
CHOICES = (
    "freeze-deep",
    "freeze-shallow",
    "sensitivity",
    "task-particle",
    "block-influence",
    "random",
    "budget",
    "full",
    "explicit",
)
WITH_RATIO = ("freeze-deep", "freeze-shallow", "sensitivity", "block-influence", "random")
_MEASURED = ("sensitivity", "task-particle", "block-influence", "budget")
SNIPPETS = ("Python", "YAML", "CLI", "axolotl", "LLaMA-Factory")


def try_allocation(
    report: ReportData,
    strategy: str,
    *,
    ratio: float = 0.5,
    millions: float | None = None,
    seed: int = 0,
    layers: Sequence[int] = (),
) -> LayerPlan:
    """Makes a plan from what a page's controls say.

    Args:
        report ([`ReportData`]): The report with the measurements.
        strategy (`str`): One of `CHOICES`.
        ratio (`float`, *optional*, defaults to `0.5`): Fraction of the layers to freeze, where the strategy takes one.
        millions (`float`, *optional*): Of `"budget"`: million parameters that may train.
        seed (`int`, *optional*, defaults to `0`): Of `"random"`.
        layers (`Sequence[int]`, *optional*): Of `"explicit"`: the layers that train.

    Returns:
        [`LayerPlan`]: The plan.

    Raises:
        LayerTracerError: The strategy is not offered here, or makes no plan of this.
    """
    if strategy not in CHOICES:
        raise LayerTracerError(f"The strategy {strategy!r} is not offered here.")
    options: dict[str, Any] = {"freeze_ratio": round(float(ratio), 4)} if strategy in WITH_RATIO else {}
    if strategy == "random":
        if seed < 0:
            raise LayerTracerError("The seed is a whole number of at least 0.")
        options["plan_seed"] = int(seed)
    if strategy == "budget":
        if not millions or millions <= 0:
            raise LayerTracerError("Say how many million parameters may train.")
        # Each layer that is tried counts all parameters anew.
        if report.num_layers * sum(len(layer.parameters) for layer in report.model.layers) > _COUNTS_LIMIT:
            raise LayerTracerError(
                "This model has too many parameters to try a budget here: use layertracer plan --strategy budget."
            )
        options["max_trainable_parameters"] = int(millions * 1e6)
    if strategy == "explicit":
        if not layers:
            raise LayerTracerError("Choose at least one layer to train.")
        options["train_layers"] = sorted(int(layer) for layer in layers)
    return make_plan(report, strategy, **options)


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
        return export_plan(plan, report.model, form.lower())
    settings = _settings(plan)
    if form == "Python":
        arguments = ", ".join(f"{name}={value!r}" for name, value in settings.items())
        measured = plan.strategy in _MEASURED
        hint = '# The trainer measures the model itself; report="FOLDER_OR_REPO" takes a report\'s measurements.\n'
        return (
            f"{hint if measured else ''}from hf_layertracer import LayerTracerConfig, LayerTracerTrainer\n\n"
            "trainer = LayerTracerTrainer(\n"
            "    model=model,\n    args=args,\n    train_dataset=dataset,\n    processing_class=tokenizer,\n"
            f"    layertracer_config=LayerTracerConfig({arguments}),\n"
            ")\n"
            "trainer.train()\n"
        )
    if form == "YAML":
        return "# LayerTracerConfig, for HfArgumentParser\n" + yaml.safe_dump(settings, sort_keys=False)
    if form == "CLI":
        words = ["layertracer", "plan", "REPORT", "--strategy", plan.strategy]
        if _is_public(report.model.id) and plan.strategy not in _MEASURED:
            words[2] = report.model.id
        for name, value in settings.items():
            if name != "strategy":
                words += [f"--{name.replace('_', '-')}", str(value)]
        return shlex.join(words) + "\n"
    raise LayerTracerError(f"Unknown form {form!r}. There are: {', '.join(SNIPPETS)}.")


def _settings(plan: LayerPlan) -> dict[str, Any]:
    """The fields of [`LayerTracerConfig`] that make the same plan."""
    settings: dict[str, Any] = {"strategy": plan.strategy}
    for name, value in plan.options.items():
        if name == "train_layers":
            settings[name] = compact_ranges(plan.trained_layers).replace(" ", "")
        else:
            settings[name] = value
    return settings


def _is_public(model_id: str | None) -> bool:
    try:
        validate_repo_id(model_id or "")
    except HFValidationError:
        return False
    return "/" in model_id
