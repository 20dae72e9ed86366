"""Keeps a plan's flags while PEFT switches adapters.

PEFT makes every active adapter trainable whenever adapters are switched or enabled, also when `disable_adapter()` ends;
trainers that take their reference model from the adapted one (DPO, GRPO) do that between a forward pass and its
backward pass. The layers of adapters are therefore given switches that put the plan's flags back at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from ..modeling import ModelParts


# What PEFT's layers of adapters change flags in.
_SWITCHES = ("set_adapter", "enable_adapters", "set_requires_grad")

MayTrain = Callable[[str, frozenset[int | str]], bool]


def hold_adapters(parts: ModelParts, before: set[str], may_train: MayTrain) -> None:
    """Lets no switch of adapters thaw what may not train.

    Args:
        parts ([`ModelParts`]): The model.
        before (`set[str]`): Names of the parameters that required a gradient before the plan.
        may_train (`Callable`):
            Whether a parameter may train, by its name and its owners. It is stored with the model: it has to be
            something that can be copied and pickled.
    """
    for path, layer in parts.model.named_modules():
        if not _is_of_adapters(layer):
            continue
        names = [f"{path}.{name}" for name, _ in layer.named_parameters()]
        # Of a layer of adapters, what trains are the adapters: the weight below them may be tied to another.
        adapters = [name for name in names if name in before]
        owners = frozenset().union(*(parts.owners[name] for name in adapters or names if name in parts.owners))
        for switch in _SWITCHES:
            setattr(layer, switch, partial(_switch, layer, switch, path, owners, may_train))


def release_adapters(model: nn.Module) -> None:
    """Gives PEFT its switches back.

    Args:
        model (`nn.Module`): The unwrapped model.
    """
    for layer in model.modules():
        if _is_of_adapters(layer):
            for switch in _SWITCHES:
                vars(layer).pop(switch, None)


def _switch(
    layer: nn.Module,
    switch: str,
    path: str,
    owners: frozenset[int | str],
    may_train: MayTrain,
    *args: Any,
    **kwargs: Any,
) -> None:
    getattr(type(layer), switch)(layer, *args, **kwargs)
    for name, parameter in layer.named_parameters():
        if parameter.requires_grad and not may_train(f"{path}.{name}", owners):
            parameter.requires_grad_(False)


def _is_of_adapters(module: nn.Module) -> bool:
    if "peft" not in sys.modules:  # it takes a while to import, and a model with adapters has done so
        return False
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import AuxiliaryTrainingWrapper

    return isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)
