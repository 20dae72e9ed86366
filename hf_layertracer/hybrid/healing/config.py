"""The settings of healing."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...checks import whole_number
from ...errors import LayerTracerError


def _setting(default: float, help: str):
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class HealingConfig:
    """How long and how a hybrid is healed. The learning rates are those of arXiv 2512.20569.

    Args:
        steps (`int`, *optional*, defaults to `500`): Optimizer steps of stage 1, the alignment of the mixers.
        distill_steps (`int`, *optional*, defaults to `0`): Optimizer steps of stage 2, the distillation of the logits.
        sequence_length (`int`, *optional*, defaults to `512`): Tokens to a sequence.
        batch_size (`int`, *optional*, defaults to `8`): Sequences to a step and device.
        learning_rate (`float`, *optional*, defaults to `1e-3`): Of stage 1.
        distill_learning_rate (`float`, *optional*, defaults to `7e-6`): Of stage 2.
        mixer_learning_rate (`float`, *optional*, defaults to `1e-4`): Of the new mixers in stage 2.
        healing_seed (`int`, *optional*, defaults to `0`): Of the data's order.
        save_steps (`int`, *optional*, defaults to `100`): Optimizer steps between checkpoints.
    """

    steps: int = _setting(500, "Steps of stage 1: the mixers learn what the attention put out.")
    distill_steps: int = _setting(0, "Steps of stage 2: the model learns the donor's logits.")
    sequence_length: int = _setting(512, "Tokens to a sequence.")
    batch_size: int = _setting(8, "Sequences to a step and device.")
    learning_rate: float = _setting(1e-3, "Of stage 1.")
    distill_learning_rate: float = _setting(7e-6, "Of stage 2.")
    mixer_learning_rate: float = _setting(1e-4, "Of the new mixers in stage 2.")
    healing_seed: int = _setting(0, "Seed of the data's order.")
    save_steps: int = _setting(100, "Steps between checkpoints.")

    def __post_init__(self) -> None:
        for name in ("steps", "distill_steps", "healing_seed"):
            whole_number(name, getattr(self, name), least=0)
        whole_number("sequence_length", self.sequence_length, least=2)
        for name in ("batch_size", "save_steps"):
            whole_number(name, getattr(self, name), least=1)
        if self.steps + self.distill_steps == 0:
            raise LayerTracerError("Healing for no steps changes nothing: set steps or distill_steps.")
