"""Whether what trains does move: some tools put frozen or replaced parameters into an optimizer, and nothing tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..errors import LayerTracerError
from ..logs import get_logger
from ..modeling.weights import own_part


logger = get_logger(__name__)

_LOOKED_AT = 4096  # elements of each tensor, those with the largest gradients: some are small, and show a small step
# A step of half a unit in the last place shows. Adam's correction of its means may make one a sixth as long as is counted
# here, and a warm-up rounds once more.
_SURE = 16
_LATER = 1.25  # times the learning rate that was too low to show
_HALF = (torch.bfloat16, torch.float16)
_TRIES = 32  # looks at one tensor after one change


@dataclass(frozen=True)
class _Look:
    """What one tensor was before a step, where its gradients are largest."""

    places: torch.Tensor
    values: torch.Tensor
    gradients: torch.Tensor
    rate: float
    eps: float


class MotionCheck:
    """Looks whether every tensor that trains moves after a change, in the first step that has to show it.

    Where the learning rate is lost in the rounding of a tensor's values, as in a long warm-up, the tensor is looked at again
    once the rate is higher, a few dozen times at most.
    """

    def __init__(self) -> None:
        self._is_due = False
        self._pending: dict[str, float] = {}  # the learning rate to look at, by tensor
        self._tries: Counter[str] = Counter()
        self._looks: dict[str, _Look] = {}
        self._has_moved: dict[str, bool] = {}  # of this run, by tensor
        self._moved_since = False
        self._has_told = False

    def ask(self) -> None:
        """Wants all that trains from the next step on looked at."""
        self._is_due = True

    def before_update(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        shares: Mapping[str, float] | None = None,
        scale: float = 1.0,
    ) -> None:
        """Remembers where the gradients are largest, and the values there.

        Args:
            model (`nn.Module`): The model, with gradients.
            optimizer (`torch.optim.Optimizer`): The optimizer.
            shares (`Mapping[str, float]`, *optional*): Of tensors that warm up, the share of the learning rate.
            scale (`float`, *optional*, defaults to `1.0`): What the gradients are multiplied by until the update.
        """
        if self._is_due:
            self._pending = {name: 0.0 for name, parameter in model.named_parameters() if parameter.requires_grad}
            self._is_due = self._moved_since = False
            self._tries.clear()
        self._looks = {}
        if not self._pending:
            return
        groups = {parameter: group for group in optimizer.param_groups for parameter in group["params"]}
        # What the optimizer does not hold should be there, and is expected to move as the fastest of what is.
        fastest = max(optimizer.param_groups, key=lambda group: float(group["lr"]))
        for name, parameter in model.named_parameters():
            if name not in self._pending or parameter.grad is None:
                continue
            group = groups.get(parameter, fastest)
            rate = float(group["lr"]) * (shares or {}).get(name, 1.0)
            if rate > 0 and rate >= self._pending[name]:
                self._look(name, parameter, rate, group.get("eps"), scale)

    def _look(self, name: str, parameter: nn.Parameter, rate: float, eps: Any, scale: float) -> None:
        size = own_part(parameter.grad.detach()).flatten().abs()
        if size.numel() and bool(size.any()):
            gradients, places = size.topk(min(_LOOKED_AT, size.numel()))
            gradients, places = gradients[gradients > 0], places[gradients > 0]
            eps = eps if isinstance(eps, float) else 1e-8
            if places.numel():  # a gradient may be nothing but NaN
                gradients = gradients.cpu().double() / scale
                self._looks[name] = _Look(places, _at(parameter, places), gradients, rate, eps)

    def after_update(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Looks at the same places again.

        Args:
            model (`nn.Module`): The model.
            optimizer (`torch.optim.Optimizer`): The optimizer.
            step (`int`): Optimizer steps made before this one.

        Raises:
            LayerTracerError: A tensor had to move under Adam and did not, or none moved of those that had to.
        """
        looks, self._looks = self._looks, {}
        if not looks:
            return
        parameters = dict(model.named_parameters())
        states = [state for state in optimizer.state.values() if state]
        is_adam = bool(states) and all("exp_avg" in state and "exp_avg_sq" in state for state in states)
        still = [name for name, look in looks.items() if torch.equal(_at(parameters[name], look.places), look.values)]
        for name in looks.keys() - set(still):
            del self._pending[name]
            self._has_moved[name] = self._moved_since = True
        wrong = []
        for name in still:
            self._has_moved.setdefault(name, False)
            parameter, look = parameters[name], looks[name]
            kind = torch.finfo(parameter.dtype)
            rounding = _SURE * kind.eps * look.values.abs().clamp(min=kind.tiny)
            if bool((look.rate * _length(optimizer, parameter, look, is_adam) > rounding).any()):
                wrong.append(name)
            elif not bool((look.rate > rounding).any()):
                self._pending[name] = look.rate * _LATER
            self._tries[name] += 1
            if self._tries[name] == _TRIES:
                del self._pending[name]
        if wrong and (is_adam or (len(still) == len(looks) and not self._moved_since)):
            raise LayerTracerError(
                f"In the update after step {step}, {_named(wrong, looks)} had gradients and a learning rate that has to "
                "show, and did not move: the optimizer does not train what the plan says."
            )
        for name in wrong:  # no other optimizer is known well enough to end a run for some tensors
            self._pending.pop(name, None)
            logger.warning(
                f"In the update after step {step}, {name} had gradients and did not move, as others did: look whether "
                f"{type(optimizer).__name__} trains it."
            )
        self._tell_what_is_lost([name for name in still if parameters[name].dtype in _HALF], looks, step)

    def _tell_what_is_lost(self, lost: list[str], looks: Mapping[str, Any], step: int) -> None:
        """Once a run: the same would be said after each change."""
        if lost and not self._has_told:
            self._has_told = True
            logger.warning(
                f"In the update after step {step}, {_named(lost, looks)} had gradients and did not move: the update is lost "
                "in rounding. Train with float32 weights (bf16=True computes in bfloat16), or a higher learning rate."
            )

    def summary(self) -> str | None:
        """What to say at the end of a run of tensors that no look found moving; `None` where there are none."""
        never = [name for name, has_moved in self._has_moved.items() if not has_moved]
        if not never:
            return None
        return (
            f"{_named(never, self._has_moved)} had gradients and were not seen to move: their steps were too short to show "
            "in the rounding of their values, so whether the optimizer trains them could not be checked."
        )


def _at(tensor: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    own = own_part(tensor.detach()).flatten()
    return own[places.to(own.device)].cpu().double()


def _length(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, look: _Look, is_adam: bool) -> torch.Tensor:
    """How far a learning rate of one moves these places."""
    if not is_adam:
        return look.gradients
    if state := optimizer.state.get(parameter):
        mean = own_part(state["exp_avg"].detach())
        square = own_part(state.get("max_exp_avg_sq", state["exp_avg_sq"]).detach())
        # Some keep means of another shape, or packed into fewer bits.
        if (
            type(mean) is type(square) is torch.Tensor
            and mean.numel() == square.numel() == own_part(parameter).numel()
        ):
            return _at(mean, look.places).abs() / (_at(square, look.places).sqrt() + look.eps)
    # Adam moves by the learning rate, however small a gradient is, down to its epsilon.
    return look.gradients / (look.gradients + look.eps)


def _named(names: list[str], among: Mapping[str, Any]) -> str:
    more = ", ..." if len(names) > 1 else ""
    return f"{len(names)} of {len(among)} tensors that train ({names[0]}{more})"
