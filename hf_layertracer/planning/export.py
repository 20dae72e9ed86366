"""Plans in the forms that other trainers read."""

from __future__ import annotations

import re

import yaml

from ..errors import LayerTracerError
from ..report.schema import LayerPlan, ModelFacts
from .savings import layer_names, matches_patterns


EXPORT_FORMATS = ("axolotl", "llama-factory", "names")


def export_plan(plan: LayerPlan, facts: ModelFacts, form: str) -> str:
    """Writes a plan for another trainer.

    Args:
        plan ([`LayerPlan`]): The plan.
        facts ([`ModelFacts`]): The model that it is for.
        form (`str`):
            `"axolotl"` (YAML with `unfrozen_parameters`), `"llama-factory"` (YAML with the arguments of its freeze
            method) or `"names"` (the parameters that train, one a line).

    Returns:
        `str`: The text of the file.

    Raises:
        LayerTracerError: Unknown form, or the other trainer cannot express this plan.
    """
    if form == "names":
        return "".join(f"{name}\n" for name in trained_names(plan, facts))
    if form == "axolotl":
        return yaml.safe_dump({"unfrozen_parameters": _axolotl_patterns(plan, facts)}, sort_keys=False)
    if form == "llama-factory":
        return yaml.safe_dump(_llama_factory(plan, facts), sort_keys=False)
    raise LayerTracerError(f"Unknown export format {form!r}. There are: {', '.join(EXPORT_FORMATS)}.")


def trained_names(plan: LayerPlan, facts: ModelFacts) -> list[str]:
    """Full names of the parameters that train under a plan, from the embedding up."""
    names = [] if not plan.train_embeddings else list(facts.embeddings)
    for layer in range(facts.num_layers):
        for name in layer_names(facts, layer):
            owners = facts.shared.get(name, [layer])
            if set(owners) & set(plan.trained_layers) and matches_patterns(name, plan.patterns):
                names.append(name)
    names += list(facts.norm) if plan.train_norm else []
    names += list(facts.head) if plan.train_head else []
    return names


def _axolotl_patterns(plan: LayerPlan, facts: ModelFacts) -> list[str]:
    """Regular expressions, matched from the beginning of a parameter's name."""
    if plan.patterns:
        return [f"^{re.escape(name)}$" for name in trained_names(plan, facts)]
    patterns = []
    if plan.trained_layers:
        indices = "|".join(str(layer) for layer in plan.trained_layers)
        patterns.append(rf"^{re.escape(facts.layers_path)}\.({indices})\.")
    outside = trained_names(plan.model_copy(update={"trained_layers": []}), facts.model_copy(update={"shared": {}}))
    return [*patterns, *(f"^{re.escape(name)}$" for name in outside)]


def _llama_factory(plan: LayerPlan, facts: ModelFacts) -> dict[str, object]:
    """Arguments of LLaMA-Factory's freeze method, which knows the first n or the last n layers only."""
    count, layers = len(plan.trained_layers), facts.num_layers
    first = plan.trained_layers == list(range(count))
    last = plan.trained_layers == list(range(layers - count, layers))
    if plan.patterns or not count or not (first or last):
        raise LayerTracerError(
            "LLaMA-Factory can train the first n or the last n layers, not "
            f"{'single parameters' if plan.patterns else plan.trained_layers}. Export as 'axolotl' or 'names' instead."
        )
    arguments: dict[str, object] = {
        "finetuning_type": "freeze",
        # Negative: the first n layers.
        "freeze_trainable_layers": -count if first and not last else count,
        "freeze_trainable_modules": "all",
    }
    outside = [*(facts.embeddings if plan.train_embeddings else ()), *(facts.norm if plan.train_norm else ())]
    outside += facts.head if plan.train_head else ()
    modules = [name.rsplit(".", 2)[-2] for name in outside]
    if modules:
        arguments["freeze_extra_modules"] = ",".join(dict.fromkeys(modules))
    return arguments
