"""Whether what trains does move: some tools put frozen or replaced parameters into an optimizer, and nothing tells."""

from __future__ import annotations

import torch
from torch import nn

from ..errors import LayerTracerError
from ..logs import get_logger
from ..modeling.weights import own_part


logger = get_logger(__name__)

_LOOKED_AT = 16  # elements of each tensor, those with the largest gradients


class MotionCheck:
    """Looks at the first optimizer step after a change that has a learning rate: every tensor with a gradient moves."""

    def __init__(self) -> None:
        self._is_due = False
        self._before: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def ask(self) -> None:
        """Wants the next step looked at."""
        self._is_due = True

    def before_update(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Remembers where the gradients are largest, and the values there.

        Args:
            model (`nn.Module`): The model, with gradients.
            optimizer (`torch.optim.Optimizer`): The optimizer.
        """
        self._before = {}
        if not self._is_due or not all(float(group["lr"]) > 0 for group in optimizer.param_groups):
            return
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad or parameter.grad is None:
                continue
            gradient = own_part(parameter.grad.detach()).flatten()
            if gradient.numel() and bool(gradient.any()):
                places = gradient.abs().topk(min(_LOOKED_AT, gradient.numel())).indices
                self._before[name] = places, own_part(parameter.detach()).flatten()[places].clone()

    def after_update(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Looks at the same places again.

        Args:
            model (`nn.Module`): The model.
            optimizer (`torch.optim.Optimizer`): The optimizer.
            step (`int`): Optimizer steps made before this one.

        Raises:
            LayerTracerError: A tensor in float32 or more has gradients and did not move under Adam, or none moved.
        """
        if not self._before:
            return
        parameters = dict(model.named_parameters())
        still = [
            name
            for name, (places, values) in self._before.items()
            if torch.equal(own_part(parameters[name].detach()).flatten()[places], values)
        ]
        self._is_due, looked_at, self._before = False, len(self._before), {}
        if not still:
            return
        names = f"{len(still)} of {looked_at} tensors that train ({still[0]}, ...)"
        adam = all("exp_avg" in state for state in optimizer.state.values()) and len(optimizer.state) > 0
        # Adam moves by the learning rate, however small a gradient is; half precision may round that away.
        sure = [name for name in still if parameters[name].dtype not in (torch.bfloat16, torch.float16)]
        if (adam and sure) or len(still) == looked_at:
            raise LayerTracerError(
                f"After the change at step {step}, {names} have gradients and did not move: the optimizer does not train "
                "what the plan says."
            )
        logger.warning(
            f"In the step after {step}, {names} had gradients and did not move: the update is lost in rounding. Train "
            "with float32 weights (bf16=True computes in bfloat16), or a higher learning rate."
        )
