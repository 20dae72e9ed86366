"""Puts a plan into force on a model, and counts what it did."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ..errors import LayerTracerError
from ..logs import get_logger
from ..modeling import EMBEDDINGS, HEAD, NORM, ModelParts, find_parts
from ..modeling.facts import GradientChange, elements, plans_in_force, trainable_before_plan
from ..records.schema import LayerPlan
from .cost import matches_patterns


logger = get_logger(__name__)


@dataclass(eq=False)
class AppliedPlan(GradientChange):
    """A plan in force.

    Args:
        before, after (`dict[nn.Parameter, bool]`): What required a gradient before the plan, and what does under it.
        plan ([`LayerPlan`]): The plan.
        trainable_parameters (`int`): Parameters that require a gradient now, in the whole model.
        frozen_parameters (`int`): Parameters that the plan froze.
    """

    plan: LayerPlan
    trainable_parameters: int
    frozen_parameters: int

    def undo(self) -> None:
        """Gives every parameter back the `requires_grad` that it had before the plan; nothing if it is in force no more."""
        for model, applied in list(plans_in_force.items()):
            if applied is self:
                _restore(self.before)
                del plans_in_force[model]


def apply_plan(model: nn.Module, plan: LayerPlan) -> AppliedPlan:
    """Freezes what the plan freezes. Nothing that was frozen before starts to train.

    So of a model with PEFT adapters, the adapters of the trained layers train. A plan that is in force on the model
    already is undone first; where something else froze or thawed parameters since, the model is taken as it is. Apply
    a plan before the optimizer is created and before the model is wrapped.

    Args:
        model (`nn.Module`): The model; wrappers are looked through.
        plan ([`LayerPlan`]): What to train.

    Returns:
        [`AppliedPlan`]: Counts of what trains, and how to undo it.

    Raises:
        LayerTracerError: The plan is for another number of layers, or it would train nothing or freeze nothing although
            it should. The model is then left as it was.
    """
    parts = find_parts(model, plan.layers_path)
    if parts.num_layers != plan.num_layers:
        raise LayerTracerError(f"The plan is for {plan.num_layers} layers, the model has {parts.num_layers}.")
    found = {parameter: parameter.requires_grad for parameter in model.parameters()}
    before = found | trainable_before_plan(parts.model)
    _restore(before)
    parameters = dict(parts.model.named_parameters())
    for name, owners in parts.owners.items():
        if parameters[name].requires_grad and not any(_trains(plan, name, owner) for owner in owners):
            parameters[name].requires_grad_(False)
    after = {parameter: parameter.requires_grad for parameter in before}
    frozen = sum(elements(p) for p, required in before.items() if required and not after[p])
    applied = AppliedPlan(before, after, plan, sum(elements(p) for p in after if after[p]), frozen)
    try:
        _check(applied, parts)
    except LayerTracerError:
        _restore(found)
        raise
    plans_in_force[parts.model] = applied
    return applied


def _restore(state: dict[nn.Parameter, bool]) -> None:
    for parameter, required in state.items():
        parameter.requires_grad_(required)


def _trains(plan: LayerPlan, name: str, owner: int | str) -> bool:
    if isinstance(owner, int):
        return owner in plan.trained_layers and matches_patterns(name, plan.patterns)
    return {EMBEDDINGS: plan.train_embeddings, NORM: plan.train_norm, HEAD: plan.train_head}.get(owner, True)


def _check(applied: AppliedPlan, parts: ModelParts) -> None:
    """Refuses what would silently do nothing."""
    plan = applied.plan
    if not any(applied.before.values()):
        raise LayerTracerError(
            "Every parameter of the model was frozen before the plan was applied, so nothing would train. Unfreeze the "
            "model first: model.requires_grad_(True)."
        )
    trainable = {index: any(p.requires_grad for p in layer.parameters()) for index, layer in enumerate(parts.layers)}
    idle = [index for index in plan.trained_layers if not trainable[index]]
    if applied.trainable_parameters == 0 or (plan.trained_layers and len(idle) == len(plan.trained_layers)):
        could = sorted(
            index
            for index, layer in enumerate(parts.layers)
            if any(applied.before.get(parameter, False) for parameter in layer.parameters())
        )
        raise LayerTracerError(
            f"The plan trains layers {plan.trained_layers}, but no parameter in them can train: only layers {could} had "
            "trainable parameters (adapters, or what was not frozen before)."
        )
    if applied.frozen_parameters == 0 and plan.frozen_layers:
        raise LayerTracerError(
            f"The plan freezes layers {plan.frozen_layers}, but it froze no parameter: they hold none that could train, "
            "or share all of theirs with trained layers."
        )
    if idle:
        logger.warning(f"The plan trains layers {idle}, but they hold no parameter that can train.")
    still = [index for index in plan.frozen_layers if trainable[index]]
    if still:
        logger.warning(f"Layers {still} are frozen by the plan but share parameters with layers that train.")
