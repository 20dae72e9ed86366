"""Puts a plan into force on a model, and counts what it did."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from functools import partial

from torch import nn

from ..errors import LayerTracerError
from ..logs import get_logger
from ..modeling import ModelParts, find_parts
from ..modeling.facts import elements, model_facts
from ..modeling.in_force import PlanInForce, plan_in_force, remember_plan, trainable_before_plan
from ..modeling.wrappers import put_shards_back
from ..records import LayerPlan
from .adapters import hold_adapters, release_adapters
from .cost import savings_of
from .outside import OUTSIDE, parts_in_full, settled, trains_outside
from .patterns import matches_patterns


logger = get_logger(__name__)


@dataclass(frozen=True)
class AppliedPlan:
    """A plan in force on a model.

    Args:
        plan ([`LayerPlan`]): The plan.
        trainable_parameters (`int`): Parameters that require a gradient now, in the whole model.
        frozen_parameters (`int`): Parameters that the plan froze.
    """

    plan: LayerPlan
    trainable_parameters: int
    frozen_parameters: int
    _model: weakref.ref[nn.Module] = field(repr=False, compare=False)
    _in_force: PlanInForce = field(repr=False, compare=False)

    def undo(self) -> None:
        """Thaws what the plan froze, whatever has changed since; does nothing if the plan is in force no more."""
        model = self._model()
        if model is not None and plan_in_force(model) is self._in_force:
            _thaw(model, self._in_force)
            remember_plan(model, None)
            release_adapters(model)


def apply_plan(model: nn.Module, plan: LayerPlan) -> AppliedPlan:
    """Freezes what the plan freezes. Nothing that was frozen before starts to train.

    So of a model with PEFT adapters, the adapters of the trained layers train. A plan that is in force on the model
    already is undone first; where something else froze parameters since, the model is taken as it is. Apply a plan
    before the optimizer is created and before the model is wrapped.

    Args:
        model (`nn.Module`): The model; wrappers are looked through.
        plan ([`LayerPlan`]): What to train.

    Returns:
        [`AppliedPlan`]: Counts of what trains, and how to undo it.

    Raises:
        LayerTracerError: The plan is for another number of layers, or wants the embedding and not the head (or the reverse)
            of a model where they are one matrix, or it would train nothing or freeze nothing although
            it should. The model is then left as it was.

    Example:

    ```python
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from hf_layertracer import apply_plan, make_plan
    >>> config = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4)
    >>> model = LlamaForCausalLM(config)
    >>> applied = apply_plan(model, make_plan(model, "freeze-deep"))
    >>> model.lm_head.weight.requires_grad
    False
    >>> applied.undo()
    >>> model.lm_head.weight.requires_grad
    True
    ```
    """
    if not isinstance(plan, LayerPlan):
        raise LayerTracerError(f"apply_plan takes a plan, as make_plan makes it, not {type(plan).__name__}.")
    parts = find_parts(model, plan.layers_path)
    if parts.num_layers != plan.num_layers:
        raise LayerTracerError(f"The plan is for {plan.num_layers} layers, the model has {parts.num_layers}.")
    put_shards_back(parts.model)
    plan = _of_this_model(plan, parts)
    may_train = partial(_may_train, plan, parts_in_full(plan, parts.tied))
    parameters = dict(parts.model.named_parameters())
    found = {name: parameter.requires_grad for name, parameter in parameters.items()}
    before = {name for name, required in trainable_before_plan(parts.model).items() if required}
    trained = {name for name in before if may_train(name, parts.owners[name])}
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in trained)
    try:
        # A plan that freezes nothing has nothing to refuse where something trains, be it around the model.
        if before != trained or plan.frozen_layers or not any(p.requires_grad for p in model.parameters()):
            _check(plan, parts, before, trained)
    except LayerTracerError:
        for name, parameter in parameters.items():
            parameter.requires_grad_(found[name])
        raise
    in_force = PlanInForce(frozenset(trained), frozenset(before - trained))
    remember_plan(parts.model, in_force)
    hold_adapters(parts, before, may_train)
    return AppliedPlan(
        plan,
        # Of the model as it is given: a wrapper may have its own parameters.
        trainable_parameters=sum(elements(p) for p in model.parameters() if p.requires_grad),
        frozen_parameters=sum(elements(parameters[name]) for name in in_force.frozen),
        _model=weakref.ref(parts.model),
        _in_force=in_force,
    )


def _thaw(model: nn.Module, in_force: PlanInForce) -> None:
    for name, parameter in model.named_parameters():
        if name in in_force.frozen:
            parameter.requires_grad_(True)


def _of_this_model(plan: LayerPlan, parts: ModelParts) -> LayerPlan:
    """The plan with embeddings and head as one decision, where they are one matrix."""
    if not parts.tied or plan.train_embeddings == plan.train_head:
        return plan
    facts = model_facts(parts)
    plan = settled(facts, plan)
    plan.savings = savings_of(facts, plan)
    return plan


def _may_train(plan: LayerPlan, full: frozenset[str], name: str, owners: frozenset[int | str]) -> bool:
    return any(_trains(plan, full, name, owner) for owner in owners)


def _trains(plan: LayerPlan, full: frozenset[str], name: str, owner: int | str) -> bool:
    if isinstance(owner, int):
        return owner in plan.trained_layers and matches_patterns(name, plan.patterns)
    return owner not in OUTSIDE or trains_outside(plan, full, owner, name)


def _check(plan: LayerPlan, parts: ModelParts, before: set[str], trained: set[str]) -> None:
    """Refuses what would silently do nothing."""
    if not before:
        raise LayerTracerError(
            "Every parameter of the model was frozen before the plan was applied, so nothing would train. Unfreeze the "
            "model first: model.requires_grad_(True)."
        )
    trainable = _layers_of(parts, trained)
    idle = [index for index in plan.trained_layers if index not in trainable]
    if not trained or (plan.trained_layers and len(idle) == len(plan.trained_layers)):
        raise LayerTracerError(
            f"The plan trains layers {plan.trained_layers}, but no parameter in them can train: only layers "
            f"{sorted(_layers_of(parts, before))} had trainable parameters (adapters, or what was not frozen before)."
        )
    if before == trained and plan.frozen_layers:
        raise LayerTracerError(
            f"The plan freezes layers {plan.frozen_layers}, but it froze no parameter: they hold none that could train, "
            "or share all of theirs with trained layers."
        )
    if idle:
        logger.warning(f"The plan trains layers {idle}, but they hold no parameter that can train.")
    still = [index for index in plan.frozen_layers if index in trainable]
    if still:
        logger.warning(f"Layers {still} are frozen by the plan but share parameters with layers that train.")


def _layers_of(parts: ModelParts, names: set[str]) -> set[int]:
    """The layers that use one of these parameters."""
    return {owner for name in names for owner in parts.owners[name] if isinstance(owner, int)}
