"""Makes layer plans: which layers train, which are frozen, why, and what that saves."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from ..errors import LayerTracerError
from ..logs import get_logger
from ..modeling import find_parts
from ..modeling.facts import model_facts
from ..records import LayerPlan, ModelFacts, ReportData, Savings
from ..text import compact_ranges, one_line
from .binding import check_binding
from .cost import savings_of
from .fitting import MemoryOfPlans, check_fits, counted_memory, split_limit
from .outside import OUTSIDE, outside_reason, settled, tied_decision
from .strategies import Choice, Moment, PlanInputs, strategy_named


if TYPE_CHECKING:
    from .config import PlanConfig

logger = get_logger(__name__)


def make_plan(
    source: ReportData | nn.Module,
    strategy: str = "freeze-deep",
    *,
    report: ReportData | None = None,
    layers_path: str | None = None,
    train_embeddings: bool | None = None,
    train_norm: bool | None = None,
    train_head: bool | None = None,
    memory: MemoryOfPlans | None = None,
    **options: Any,
) -> LayerPlan:
    """Decides for every layer whether it trains.

    Embeddings, final norm and head follow their neighbours unless told otherwise: embeddings train with the first
    layer, norm and head with the last one. An embedding matrix that is tied to the head is one decision: it trains where
    both would.

    Args:
        source ([`LayerTracerReport`] or `nn.Module`):
            A report, or a model (on the meta device will do, except for `"weight-snr"`, which reads the weights).
        strategy (`str`, *optional*, defaults to `"freeze-deep"`):
            Its name; `layertracer plan --help` lists all with what they do.
        report ([`LayerTracerReport`], *optional*): Measurements, where `source` is a model.
        layers_path (`str`, *optional*): Where `source` is a model: dotted path of its list of layers.
        train_embeddings, train_norm, train_head (`bool`, *optional*): Overrule the strategy.
        memory ([`~hf_layertracer.planning.fitting.MemoryOfPlans`], *optional*):
            What `max_memory` is compared with: `hf_layertracer.estimate.traced_memory(model, args)` traces a step of the
            run. By default weights, gradients and Adam's moments are counted.
        options: Options of the strategy, such as `freeze_ratio=0.5`, `train_layers="0-7"`, `max_trainable_parameters=...`,
            or `plan_seed=0`. With every strategy, `max_memory="24GB"` refuses a plan that takes more, and says what would
            fit.

    Returns:
        [`LayerPlan`]: The plan, with its reason and savings.

    Raises:
        LayerTracerError: Unknown strategy or option, a value out of range, a report of another model, or a plan that
            would train nothing or freeze nothing although it should.

    Example:

    ```python
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from hf_layertracer import make_plan
    >>> config = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4)
    >>> model = LlamaForCausalLM(config)
    >>> make_plan(model, "freeze-deep").trained_layers
    [0, 1]
    ```
    """
    if not isinstance(source, nn.Module | ReportData):
        raise LayerTracerError(
            f"make_plan takes a report or a model, not {type(source).__name__}: LayerTracerReport.load(...) reads a report."
        )
    if layers_path is not None and not isinstance(source, nn.Module) and layers_path != source.model.layers_path:
        raise LayerTracerError(
            f"layers_path is for models; this report is of the layers {source.model.layers_path}. Diagnose the model with "
            "this layers_path."
        )
    if isinstance(source, nn.Module):
        facts, model = model_facts(find_parts(source, layers_path)), source
    else:
        facts, model, report = source.model, None, report or source
    chosen = strategy_named(strategy)
    own_options, limit = split_limit(chosen, options)
    settings = chosen.check_options(own_options)
    if report is not None and report is not source:
        for warning in check_binding(report.model, facts):
            logger.warning_once(warning)
    report = report if report is not None and report.is_measured else None
    wishes = dict(zip(OUTSIDE, (train_embeddings, train_norm, train_head), strict=True))
    memory = memory or counted_memory(facts)
    inputs = PlanInputs(
        facts,
        report,
        model,
        *_ruled(facts, wishes),
        lambda choice: memory.takes(_plan_of(facts, strategy, options, wishes, choice)),
        memory.what,
    )
    chosen.check_inputs(inputs)
    plan = _plan_of(facts, strategy, options, wishes, chosen.choose(inputs, settings))
    if limit is not None:
        check_fits(facts, plan, limit, memory)
    _check_count(plan, getattr(settings, "max_trainable_parameters", None))
    if strategy == "full":  # it decides nothing, so there is nothing to refuse: what trains may lie around the model
        return plan
    if plan.savings.trainable_parameters == 0:
        raise LayerTracerError(
            f"This plan would train nothing: strategy {strategy!r} with {options or 'no options'}.{_frozen(facts, plan)}"
        )
    if plan.savings.trainable_parameters == plan.savings.trainable_parameters_full:
        raise LayerTracerError(
            f"This plan would freeze nothing: strategy {strategy!r} with {options or 'no options'}. If that is what you "
            "want, use the strategy 'full'."
        )
    return plan


def change_plan(
    facts: ModelFacts,
    plan: LayerPlan,
    moment: Moment,
    report: ReportData | None = None,
    memory: MemoryOfPlans | None = None,
) -> LayerPlan | None:
    """Asks the strategy of a plan again what trains.

    Args:
        facts ([`ModelFacts`]): The model as it was before any plan.
        plan ([`LayerPlan`]): The plan in force, of a strategy that changes.
        moment ([`Moment`]): When, and what was seen since.
        report ([`LayerTracerReport`], *optional*): The measurements before training.
        memory ([`~hf_layertracer.planning.fitting.MemoryOfPlans`], *optional*): What a limit is compared with.

    Returns:
        [`LayerPlan`] or `None`: The plan from now on; `None` where nothing changes.

    Raises:
        LayerTracerError: The new plan takes more than the limit on memory.
    """
    strategy = strategy_named(plan.strategy)
    assert strategy.change is not None
    wishes = {part: plan.options.get(f"train_{part}") for part in OUTSIDE}
    options = {name: value for name, value in plan.options.items() if name.removeprefix("train_") not in OUTSIDE}
    own_options, limit = split_limit(strategy, options)
    measured = report if report is not None and report.is_measured else None
    inputs = PlanInputs(facts, measured, None, *_ruled(facts, wishes))
    choice = strategy.change.choose(inputs, moment, strategy.check_options(own_options))
    if choice is None:
        return None
    changed = _plan_of(facts, plan.strategy, options, wishes, choice)
    if limit is not None:
        check_fits(facts, changed, limit, memory or counted_memory(facts))
    same = ("trained_layers", "train_embeddings", "train_norm", "train_head", "patterns")
    return None if all(getattr(changed, name) == getattr(plan, name) for name in same) else changed


def _plan_of(
    facts: ModelFacts, strategy: str, options: dict[str, Any], wishes: dict[str, bool | None], choice: Choice
) -> LayerPlan:
    """A strategy's choice as a plan, with what it saves."""
    outside = _outside(facts, choice, wishes)
    overruled = {f"train_{part}": wish for part, wish in wishes.items() if wish is not None}
    plan = LayerPlan(
        strategy=strategy,
        options={name: _as_json(value) for name, value in {**options, **overruled}.items()},
        num_layers=facts.num_layers,
        layers_path=facts.layers_path,
        trained_layers=sorted(choice.trained),
        frozen_layers=sorted(set(range(facts.num_layers)) - choice.trained),
        train_embeddings=outside["embeddings"],
        train_norm=outside["norm"],
        train_head=outside["head"],
        patterns=choice.patterns,
        reason=choice.reason,
        savings=_NO_SAVINGS,
    )
    plan.reason = f"{choice.reason} {outside_reason(facts, plan)}"
    plan.savings = savings_of(facts, plan)
    return plan


def configured_plan(
    source: ReportData | nn.Module,
    config: PlanConfig,
    *,
    report: ReportData | None = None,
    layers_path: str | None = None,
    memory: MemoryOfPlans | None = None,
) -> LayerPlan:
    """The plan that settings ask for: that of a file, or one made by a strategy.

    Args:
        source ([`LayerTracerReport`] or `nn.Module`): A report, or a model.
        config ([`PlanConfig`]): The settings.
        report ([`LayerTracerReport`], *optional*): Measurements, where `source` is a model.
        layers_path (`str`, *optional*): Where `source` is a model: dotted path of its list of layers.
        memory ([`~hf_layertracer.planning.fitting.MemoryOfPlans`], *optional*): What a limit on memory is compared with.

    Returns:
        [`LayerPlan`]: The plan; of one from a file, the savings are those on this model, and a matrix that is embedding
        and head here trains where both would.

    Raises:
        LayerTracerError: The file holds no plan, or one for another model; or [`make_plan`] refuses.
    """
    if config.plan is None:
        options = config.plan_options()
        return make_plan(source, config.strategy, report=report, layers_path=layers_path, memory=memory, **options)
    facts = model_facts(find_parts(source, layers_path)) if isinstance(source, nn.Module) else source.model
    plan = read_plan(config.plan)
    if plan.num_layers != facts.num_layers:
        raise LayerTracerError(
            f"The plan in {config.plan} is for {plan.num_layers} layers, the model has {facts.num_layers}."
        )
    plan = settled(facts, plan.model_copy(update={"layers_path": facts.layers_path}))
    plan.savings = savings_of(facts, plan)
    return plan


def read_plan(path: str | Path) -> LayerPlan:
    """Reads a plan file.

    Args:
        path (`str` or `Path`): A file that `layertracer plan --out` or successive halving wrote.

    Returns:
        [`LayerPlan`]: The plan.

    Raises:
        LayerTracerError: The file cannot be read or holds no plan.
    """
    try:
        return LayerPlan.model_validate_json(Path(path).read_bytes())
    except OSError as error:
        raise LayerTracerError(f"Could not read the plan {path}: {error.strerror or error}.") from error
    except ValueError as error:
        raise LayerTracerError(f"{path} holds no plan: {one_line(str(error), 200)}") from error


def _frozen(facts: ModelFacts, plan: LayerPlan) -> str:
    """What was frozen before a plan, where it is what leaves nothing to train."""
    layers = [
        index
        for index, layer in enumerate(facts.layers)
        if layer.frozen and set(layer.parameters) <= set(layer.frozen)
    ]
    if not layers and not facts.frozen:
        return ""
    before = [f"layers {compact_ranges(layers)}"] if layers else []
    before += [f"{len(facts.frozen)} parameters outside the layers"] if facts.frozen else []
    return (
        f" Of the model, {' and '.join(before)} were frozen before, and the plan freezes layers "
        f"{compact_ranges(plan.frozen_layers)}. Unfreeze the model first, or train what was left: strategy='full'."
    )


def _as_json(value: Any) -> Any:
    """An option as a report can hold it: a list for a range or an array, Python's numbers for numpy's."""
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_as_json(entry) for entry in value]
    return value.item() if isinstance(value, np.generic) else value


_NO_SAVINGS = Savings(**dict.fromkeys(Savings.model_fields, 0))


def _outside(facts: ModelFacts, choice: Choice, overrule: dict[str, bool | None]) -> dict[str, bool]:
    """Which of embeddings, norm and head train."""
    follows = {"embeddings": 0, "norm": facts.num_layers - 1, "head": facts.num_layers - 1}
    decided = {
        part: (layer in choice.trained) if choice.outside is None else (part in choice.outside)
        for part, layer in follows.items()
    }
    if facts.tied:
        both = tied_decision(decided, overrule, choice.patterns)
        decided |= {"embeddings": both, "head": both}
        overrule = {"norm": overrule["norm"]}
    decided |= {part: wish for part, wish in overrule.items() if wish is not None}
    return decided


def _ruled(facts: ModelFacts, wishes: dict[str, bool | None]) -> tuple[frozenset[str], frozenset[str]]:
    """Which of embeddings, norm and head train whatever a strategy says, and which do not; tied ones are one."""
    ruled = dict(wishes)
    if facts.tied:
        for part, other in (("embeddings", "head"), ("head", "embeddings")):
            ruled[part] = wishes[other] if wishes[part] is None else wishes[part]
    always = frozenset(part for part, wish in ruled.items() if wish)
    return always, frozenset(part for part, wish in ruled.items() if wish is False)


def _check_count(plan: LayerPlan, limit: int | None) -> None:
    """Refuses a plan that trains more parameters than it was allowed to."""
    if limit is not None and plan.savings.trainable_parameters > limit:
        raise LayerTracerError(
            f"This plan ({plan.strategy}) trains {plan.savings.trainable_parameters} parameters, more than the {limit} that "
            "may train."
        )
