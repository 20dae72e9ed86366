"""What the strategies share that change during training which layers train."""

from __future__ import annotations

from dataclasses import dataclass

from ...checks import whole_number
from ...errors import LayerTracerError
from .base import option


@dataclass(frozen=True)
class ChangingOptions:
    """When what trains changes, and what becomes of the optimizer's state.

    Args:
        change_steps (`int`, *optional*, defaults to `20`): Optimizer steps between two changes.
        thaw_warmup_steps (`int`, *optional*, defaults to `5`):
            Steps over which what newly trains rises to the scheduled learning rate; at most `change_steps`.
        keep_optimizer_state (`bool`, *optional*, defaults to `False`):
            Keep the optimizer's state of frozen parameters on the CPU until they train again, instead of freeing it.
    """

    change_steps: int = option(20, "Steps between two changes of what trains.")
    thaw_warmup_steps: int = option(5, "Steps over which what newly trains rises to the learning rate.")
    keep_optimizer_state: bool = option(
        False, "Keep the optimizer's state of frozen parameters on the CPU, instead of freeing it."
    )

    def __post_init__(self) -> None:
        whole_number("change_steps", self.change_steps)
        whole_number("thaw_warmup_steps", self.thaw_warmup_steps, least=0)
        if self.thaw_warmup_steps > self.change_steps:
            raise LayerTracerError(
                f"thaw_warmup_steps={self.thaw_warmup_steps} is longer than change_steps={self.change_steps}: a layer "
                "could be frozen before it reached its learning rate."
            )
