"""What an estimate is asked for, as the command line takes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..checks import one_of, whole_number
from ..errors import LayerTracerError


if TYPE_CHECKING:
    from transformers import TrainingArguments


_PRECISIONS = ("bf16", "fp16")


@dataclass
class EstimateConfig:
    """The run whose memory and time are estimated.

    Args:
        batch_size (`int`, *optional*, defaults to `8`): Examples per device and step.
        sequence_length (`int`, *optional*): Tokens of each example; 1024 by default, or as many as the model takes.
        optimizer (`str`, *optional*, defaults to `"adamw_torch_fused"`): As `TrainingArguments(optim=...)`.
        precision (`str`, *optional*): `"bf16"` or `"fp16"`: mixed precision. By default all in the weights' data type.
        gradient_checkpointing (`bool`, *optional*, defaults to `False`): Whether activations are computed again.
        world_size (`int`, *optional*, defaults to `1`): Number of devices.
        fsdp (`bool`, *optional*, defaults to `False`): Whether FSDP shards weights, gradients and optimizer state.
        zero (`int`, *optional*): The stage of DeepSpeed ZeRO, 1 to 3.
        device (`str`, *optional*): What it should fit, as [`find_device`] takes it.

    Raises:
        LayerTracerError: A value that cannot be used.
    """

    batch_size: int = field(default=8, metadata={"help": "Examples per device and step."})
    sequence_length: int | None = field(default=None, metadata={"help": "Tokens of each example; 1024 by default."})
    optimizer: str = field(default="adamw_torch_fused", metadata={"help": "As TrainingArguments(optim=...)."})
    precision: str | None = field(
        default=None, metadata={"help": "Mixed precision; the weights' own by default.", "choices": _PRECISIONS}
    )
    gradient_checkpointing: bool = field(
        default=False, metadata={"help": "Compute activations again, to save memory."}
    )
    world_size: int = field(default=1, metadata={"help": "Number of devices."})
    fsdp: bool = field(default=False, metadata={"help": "Shard all by FSDP."})
    zero: int | None = field(default=None, metadata={"help": "Stage of DeepSpeed ZeRO: 1, 2 or 3."})
    device: str | None = field(default=None, metadata={"help": 'What it should fit: "H100 80GB", "RTX 4090", "24GB".'})

    def __post_init__(self) -> None:
        for name in ("batch_size", "sequence_length", "world_size"):
            whole_number(name, getattr(self, name))
        if self.precision is not None:
            one_of("precision", self.precision, _PRECISIONS)
        if self.zero is not None and self.zero not in (1, 2, 3):
            raise LayerTracerError(f"zero must be 1, 2 or 3, not {self.zero!r}.")
        if self.fsdp and self.zero is not None:
            raise LayerTracerError("fsdp and zero are two ways of sharding: choose one.")
        if (self.fsdp or self.zero) and self.world_size == 1:
            raise LayerTracerError("Sharding needs several devices: set world_size.")

    def training_arguments(self) -> TrainingArguments:
        """The run as the Trainer takes it."""
        from transformers import TrainingArguments

        try:
            return TrainingArguments(
                output_dir="trainer_output",
                per_device_train_batch_size=self.batch_size,
                optim=self.optimizer,
                bf16=self.precision == "bf16",
                fp16=self.precision == "fp16",
                activation_checkpointing=self.gradient_checkpointing,
                use_cpu=True,
                report_to="none",
            )
        except ValueError as error:
            raise LayerTracerError(f"The Trainer does not take these settings: {error!s:.300}") from error

    def options(self) -> dict[str, Any]:
        """The other arguments of [`estimate_training`]."""
        sharding = "fsdp" if self.fsdp else f"zero{self.zero}" if self.zero else "ddp"
        return {
            "sequence_length": self.sequence_length,
            "world_size": self.world_size,
            "sharding": sharding,
            "device": self.device,
        }
