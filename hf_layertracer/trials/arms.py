"""Arms: what is compared. A strategy with its options, or LoRA."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..errors import LayerTracerError
from ..planning.config import LayerTracerConfig
from ..planning.strategies import strategy_named


if TYPE_CHECKING:
    from torch import nn


LORA = "lora"
_LORA_OPTIONS = {"rank": int, "alpha": float, "dropout": float, "target_modules": (str, list)}
OVERRULES = ("train_embeddings", "train_norm", "train_head")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


class ArmConfig(BaseModel):
    """One allocation to try; all names beside `name`, `strategy` and `learning_rate` are options of the strategy.

    Args:
        name (`str`, *optional*): How it is called in tables and folders; the strategy's name by default.
        strategy (`str`):
            A strategy of [`make_plan`], or `"lora"` (PEFT), whose options are `rank`, `alpha` (as large as the rank by
            default), `dropout` and `target_modules` (`"all-linear"` by default).
        learning_rate (`float`, *optional*): Its own peak learning rate.
        files (`list[str]`, *optional*):
            Its own training files, such as what `layertracer data select` kept; the trial's by default. The token budget
            is the same, and so is the diagnosis.
    """

    model_config = ConfigDict(extra="allow")

    name: str = ""
    strategy: str
    learning_rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    files: list[str] | None = Field(default=None, min_length=1)

    @property
    def options(self) -> dict[str, Any]:
        """Options of the strategy."""
        return dict(self.model_extra or {})

    def takes(self, option: str) -> bool:
        """Whether the strategy has an option that the arm leaves open."""
        return not self.is_lora and option not in self.options and option in strategy_named(self.strategy).option_names

    @property
    def is_lora(self) -> bool:
        """Whether adapters train instead of layers."""
        return self.strategy == LORA

    @property
    def is_drawn(self) -> bool:
        """Whether each seed draws layers of its own, which then stay."""
        return self.takes("plan_seed") and self.changes_every is None

    @property
    def changes_every(self) -> int | None:
        """Steps between two changes of what trains; `None` for an arm that chooses once."""
        if self.is_lora or strategy_named(self.strategy).change is None:
            return None
        return strategy_named(self.strategy).check_options(_own(self.options)).change_steps

    def with_options(self, **options: Any) -> ArmConfig:
        """The same arm with more options."""
        return ArmConfig(**{**self.model_dump(), **options})

    def tracing(self, **settings: Any) -> LayerTracerConfig:
        """The settings of a traced run of this arm.

        Args:
            settings: Further settings of [`LayerTracerConfig`].

        Returns:
            [`LayerTracerConfig`]: The settings.
        """
        if self.is_lora:  # the base model is frozen by PEFT, and adapters train everywhere
            return LayerTracerConfig(strategy="full", **settings)
        return LayerTracerConfig(strategy=self.strategy, **self.options, **settings)

    @model_validator(mode="after")
    def _can_be_run(self) -> ArmConfig:
        self.name = self.name or self.strategy
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"name: {self.name!r} cannot name a folder: use letters, digits, dots, hyphens and underscores."
            )
        if self.is_lora:
            _check_lora(self.options)
            return self
        try:
            strategy = strategy_named(self.strategy)
        except LayerTracerError as error:
            # LoRA is no strategy: it adds parameters instead of choosing them.
            raise ValueError(f"strategy: {str(error).rstrip('.')}, {LORA}.") from error
        strategy.check_options(_own(self.options))
        return self


def with_adapters(model: nn.Module, arm: ArmConfig, rank: int | None = None) -> nn.Module:
    """Puts LoRA adapters on a model (PEFT).

    Args:
        model (`nn.Module`): The model, on any device.
        arm ([`ArmConfig`]): An arm with the strategy `"lora"`.
        rank (`int`, *optional*): Overrules the arm's.

    Returns:
        `nn.Module`: The PEFT model, whose adapters alone train.

    Raises:
        LayerTracerError: PEFT is not installed, or it does not accept the options.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ModuleNotFoundError as error:
        raise LayerTracerError('An arm with LoRA needs PEFT: pip install "hf_layertracer[peft]"') from error
    options = arm.options
    rank = rank or options.get("rank", 8)
    settings = LoraConfig(
        r=rank,
        lora_alpha=options.get("alpha", rank),
        lora_dropout=options.get("dropout", 0.0),
        target_modules=options.get("target_modules", "all-linear"),
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, settings)
    except ValueError as error:
        raise LayerTracerError(f"The arm {arm.name!r}: {str(error).splitlines()[0]}") from error


def _own(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in OVERRULES}


def _check_lora(options: dict[str, Any]) -> None:
    for name, value in options.items():
        if name not in _LORA_OPTIONS:
            raise ValueError(f"{name}: lora has no such option: it takes {', '.join(_LORA_OPTIONS)}.")
        kind = _LORA_OPTIONS[name]
        if kind is float and isinstance(value, int):
            continue
        if not isinstance(value, kind) or isinstance(value, bool) or (name in ("rank", "alpha") and value <= 0):
            raise ValueError(f"{name}: {value!r} is no {name} of LoRA.")
