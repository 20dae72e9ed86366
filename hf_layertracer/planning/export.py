"""Plans in the forms that other trainers read."""

from __future__ import annotations

import re

import yaml

from ..errors import LayerTracerError
from ..records import LayerPlan, ModelFacts
from .cost import frozen_in_layers, layer_names
from .outside import trained_outside
from .patterns import matches_patterns


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

    Example:

    ```python
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from hf_layertracer import DiagnosisConfig, Probe, diagnose, export_plan
    >>> config = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4)
    >>> model = LlamaForCausalLM(config)
    >>> report = diagnose(model, [Probe((5, 6, 7), 8)], config=DiagnosisConfig(repeats=1))
    >>> print(export_plan(report.plan, report.model, "names").splitlines()[0])
    model.embed_tokens.weight
    ```
    """
    if form == "names":
        return "".join(f"{name}\n" for name in trained_names(plan, facts))
    if form == "axolotl":
        return yaml.safe_dump({"unfrozen_parameters": _axolotl_patterns(plan, facts)}, sort_keys=False)
    if form == "llama-factory":
        return yaml.safe_dump(_llama_factory(plan, facts), sort_keys=False)
    raise LayerTracerError(f"Unknown export format {form!r}. There are: {', '.join(EXPORT_FORMATS)}.")


def trained_names(plan: LayerPlan, facts: ModelFacts) -> list[str]:
    """Full names of the parameters that train under a plan, from the embedding up.

    What was frozen before the plan stays frozen; what lies outside the text decoder is left to train.
    """
    outside = trained_outside(facts, plan)
    names = [*facts.other, *outside["embeddings"]]
    for layer in range(facts.num_layers):
        for name in layer_names(facts, layer):
            owners = facts.shared.get(name, [layer])
            if set(owners) & set(plan.trained_layers) and matches_patterns(name, plan.patterns):
                names.append(name)
    names += [*outside["norm"], *outside["head"]]
    frozen = {*facts.frozen, *frozen_in_layers(facts)}
    return [name for name in names if name not in frozen]


def _axolotl_patterns(plan: LayerPlan, facts: ModelFacts) -> list[str]:
    """Regular expressions, matched from the beginning of a parameter's name.

    axolotl escapes every period itself, so one that was escaped already would match nothing: a period in brackets is
    the same to it and to everybody else.
    """

    def literal(name: str) -> str:
        return re.escape(name).replace(r"\.", "[.]")

    trained = trained_names(plan, facts)
    in_layers = [name for name in trained if name.startswith(f"{facts.layers_path}.")]
    whole = {name for layer in plan.trained_layers for name in layer_names(facts, layer)} == set(in_layers)
    outside = [f"^{literal(name)}$" for name in trained if not whole or name not in in_layers]
    if not (whole and in_layers):
        return outside
    indices = "|".join(str(layer) for layer in plan.trained_layers)
    return [f"^{literal(facts.layers_path)}[.]({indices})[.]", *outside]


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
    for name in outside:
        if "." not in name:
            raise LayerTracerError(
                f"LLaMA-Factory names modules, and {name} lies in none. Export as 'axolotl' or 'names' instead."
            )
    modules = [name.rsplit(".", 2)[-2] for name in outside]
    if modules:
        arguments["freeze_extra_modules"] = ",".join(dict.fromkeys(modules))
    parts = [*(f".{layer}." for layer in plan.trained_layers), *modules]
    names = [*facts.embeddings, *facts.norm, *facts.head]
    names += [name for layer in range(layers) for name in layer_names(facts, layer)]
    selected = {name for name in names if any(part in name for part in parts)}
    surplus = sorted(selected - set(trained_names(plan, facts)))
    if surplus:
        raise LayerTracerError(
            f"LLaMA-Factory would train {surplus[0]} too: it trains all parameters in whose names it finds one of "
            f"{', '.join(parts)}. Make a plan without these (train_norm=False), or export as 'axolotl' or 'names' instead."
        )
    return arguments
