"""The plan in force on a model: remembered with the model and by name, so that copies and pickles of it know it too."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


_ATTRIBUTE = "_layertracer_plan_in_force"


@dataclass(frozen=True)
class PlanInForce:
    """What a plan did to a model.

    Args:
        trained (`frozenset[str]`): Names of the parameters that it left trainable.
        frozen (`frozenset[str]`): Names of those that it froze. All others were frozen before.
    """

    trained: frozenset[str]
    frozen: frozenset[str]


def plan_in_force(model: nn.Module) -> PlanInForce | None:
    """The plan in force on a model, if there is one.

    Args:
        model (`nn.Module`): The unwrapped model.

    Returns:
        [`PlanInForce`]: What it did.
    """
    return vars(model).get(_ATTRIBUTE)


def remember_plan(model: nn.Module, in_force: PlanInForce | None) -> None:
    """Notes on a model which plan is in force on it.

    Args:
        model (`nn.Module`): The unwrapped model.
        in_force ([`PlanInForce`], *optional*): What the plan did; `None` where it was undone.
    """
    if in_force is None:
        vars(model).pop(_ATTRIBUTE, None)
    else:
        setattr(model, _ATTRIBUTE, in_force)


def trainable_before_plan(model: nn.Module) -> dict[str, bool]:
    """What requires a gradient once the plan in force is undone.

    Where something else froze parameters since, or put adapters into the model, there is nothing to go back to: the
    model is taken as it is. What something else thawed since was thawed.

    Args:
        model (`nn.Module`): The unwrapped model.

    Returns:
        `dict[str, bool]`: Each parameter, by its name.
    """
    now = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    applied = plan_in_force(model)
    if applied is None or not all(now.get(name, False) for name in applied.trained):
        return now
    return {name: required or name in applied.frozen for name, required in now.items()}
