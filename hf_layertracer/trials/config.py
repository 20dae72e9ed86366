"""What a trial compares: one model, one budget, one evaluation, several allocations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..errors import LayerTracerError
from ..evaluation import EvaluationConfig
from ..yaml_file import read_yaml
from .arms import ArmConfig


UNTOUCHED = "base"  # the arm under which the model before training stands in every table
_LARGEST_SEED = 2**32 - 1  # that NumPy takes


class TrainConfig(BaseModel):
    """The training that all arms share.

    Args:
        files (`list[str]`): Text files of the new domain: plain UTF-8, or `.jsonl` with a document a line.
        tokens (`int`): Token budget of one run; whole optimizer steps of it are made.
        sequence_length (`int`, *optional*, defaults to `512`): Tokens of a block.
        batch_size (`int`, *optional*, defaults to `8`): Blocks of an optimizer step, over all processes.
        gradient_accumulation_steps (`int`, *optional*, defaults to `1`): Parts in which a step's blocks are computed.
        learning_rate (`float`, *optional*, defaults to `1e-4`): Peak learning rate; an arm may have its own.
        warmup_ratio (`float`, *optional*, defaults to `0.1`): Fraction of the steps that the learning rate rises.
        scheduler (`str`, *optional*, defaults to `"cosine"`):
            What the learning rate does then: it falls (`"cosine"`, `"linear"`) or stays (`"constant"`).
        weight_decay (`float`, *optional*, defaults to `0.0`): Weight decay of AdamW.
        bf16 (`bool`, *optional*, defaults to `False`): Compute in bfloat16 (autocast).
        save_steps (`int`, *optional*):
            Steps between checkpoints; by default they come as often as takes a twentieth of the time at most, and not in
            the first half minute. With 0 there are none, and a run that is interrupted begins anew.
    """

    model_config = ConfigDict(extra="forbid")

    files: list[str] = Field(min_length=1)
    tokens: int = Field(ge=1)
    sequence_length: int = Field(default=512, ge=2)
    batch_size: int = Field(default=8, ge=1)
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0, allow_inf_nan=False)
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)
    scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    bf16: bool = False
    save_steps: int | None = Field(default=None, ge=0)

    @property
    def steps(self) -> int:
        """Optimizer steps that the budget allows."""
        return self.tokens // (self.batch_size * self.sequence_length)

    @model_validator(mode="after")
    def _is_possible(self) -> TrainConfig:
        step = self.batch_size * self.sequence_length
        if self.tokens < step:
            raise ValueError(
                f"tokens: a budget of {self.tokens} is below one step of {step} tokens ({self.batch_size} blocks of "
                f"{self.sequence_length}). Raise it, or make batch_size or sequence_length smaller."
            )
        if self.batch_size % self.gradient_accumulation_steps:
            raise ValueError(
                f"gradient_accumulation_steps: {self.batch_size} blocks cannot be cut into "
                f"{self.gradient_accumulation_steps} equal parts."
            )
        return self


class ObjectiveConfig(BaseModel):
    """What an arm is worth: `w_learn * learned - w_forget * forgotten`.

    Args:
        learn (`str`, *optional*, defaults to `"new/bits_per_byte"`): Metric whose improvement counts as learned.
        forget (`str`, *optional*, defaults to `"old/bits_per_byte"`): Metric whose decline counts as forgotten.
        w_learn (`float`, *optional*, defaults to `1.0`): Weight of what was learned.
        w_forget (`float`, *optional*, defaults to `1.0`): Weight of what was forgotten.
    """

    model_config = ConfigDict(extra="forbid")

    learn: str = "new/bits_per_byte"
    forget: str = "old/bits_per_byte"
    w_learn: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    w_forget: float = Field(default=1.0, ge=0, allow_inf_nan=False)


class TrialsConfig(BaseModel):
    """What a trial compares. The untouched model is always a row and is no arm.

    Args:
        model (`str`): Hub id or local folder of a causal language model.
        train ([`TrainConfig`]): The training that all arms share.
        evaluate ([`EvaluationConfig`], *optional*): What every model is evaluated on; the package's probes by default.
        arms (`list[ArmConfig]`): What is compared: a strategy of [`make_plan`], or `lora`, each with its options.
        seeds (`list[int]`, *optional*, defaults to `[0]`): Each arm is run once with each; order and choice of the data.
        match (`str`, *optional*, defaults to `"none"`):
            `"trainable_parameters"` chooses `freeze_ratio` and `rank` where an arm leaves them out, so that as many
            parameters train as in the first arm that freezes something. Their embeddings, norm and head train if they do
            in that arm.
        objective ([`ObjectiveConfig`], *optional*): By what arms are ranked; successive halving needs one.
        diagnosis (`dict[str, Any]`, *optional*): Settings of [`DiagnosisConfig`] for the one diagnosis that arms share.
        revision (`str`, *optional*): Branch, tag or commit of the model on the Hub.
        dtype (`str`, *optional*, defaults to `"float32"`): Data type of the weights.
        processes (`int`, *optional*, defaults to `1`): With more than one, each run goes through `accelerate launch`.

    Example:

    ```python
    from hf_layertracer import TrialsConfig

    config = TrialsConfig(
        model="HuggingFaceTB/SmolLM2-135M",
        train={"files": ["new.txt"], "tokens": 200_000, "sequence_length": 128},
        evaluate={"new": ["new_held_out.txt"], "old": ["old.txt"], "limit": 100},
        arms=[{"strategy": "full"}, {"strategy": "freeze-deep", "freeze_ratio": 0.5}],
    )
    ```
    """

    model_config = ConfigDict(extra="forbid")

    model: str
    train: TrainConfig
    evaluate: EvaluationConfig = EvaluationConfig()
    arms: list[ArmConfig] = Field(min_length=1)
    seeds: list[int] = Field(default=[0], min_length=1)
    match: Literal["trainable_parameters", "none"] = "none"
    objective: ObjectiveConfig | None = None
    diagnosis: dict[str, Any] = {}
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    processes: int = Field(default=1, ge=1)

    def __init__(self, **values: Any):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise LayerTracerError(_first_mistake(error)) from error

    @classmethod
    def from_file(cls, path: str | Path) -> TrialsConfig:
        """Reads a YAML file; relative paths in it start at its folder or, if nothing is there, at the current one.

        Args:
            path (`str` or `Path`): The file.

        Returns:
            [`TrialsConfig`]: The config.

        Raises:
            LayerTracerError: The file cannot be read; or the first mistake in it, with its place.
        """
        path = Path(path)
        values = read_yaml(path)
        if not isinstance(values, dict):
            raise LayerTracerError(f"{path} is no trials config: it should begin with names such as model: and arms:.")
        try:
            config = cls(**{str(name): value for name, value in values.items()})
        except LayerTracerError as error:
            raise LayerTracerError(f"{path}, {error}") from error
        return _beside(config, path.parent)

    @field_validator("diagnosis")
    @classmethod
    def _can_be_diagnosed(cls, values: dict[str, Any]) -> dict[str, Any]:
        from ..config import DiagnosisConfig

        unknown = sorted(set(values) - set(DiagnosisConfig.__dataclass_fields__))
        if unknown:
            raise ValueError(f"DiagnosisConfig has no {', '.join(unknown)}.")
        DiagnosisConfig(**values)
        return values

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: list[int]) -> list[int]:
        if any(not 0 <= seed <= _LARGEST_SEED for seed in seeds):
            raise ValueError(f"a seed is a whole number from 0 to {_LARGEST_SEED}.")
        if len(set(seeds)) < len(seeds):
            raise ValueError("the same seed stands there twice: it would be the same run.")
        return seeds

    @model_validator(mode="after")
    def _fits_together(self) -> TrialsConfig:
        seen: dict[str, int] = {}
        for index, arm in enumerate(self.arms):
            # Folders are named after arms, and some file systems do not tell capitals.
            name = arm.name.casefold()
            if name == UNTOUCHED:
                raise ValueError(f"arms[{index}].name: {UNTOUCHED!r} is the untouched model, which is always a row.")
            if name in seen:
                raise ValueError(f"arms[{index}].name: arms[{seen[name]}] is called {arm.name!r} already.")
            seen[name] = index
        if self.train.batch_size % (self.processes * self.train.gradient_accumulation_steps):
            raise ValueError(
                f"processes: {self.train.batch_size} blocks a step cannot be shared among {self.processes} processes."
            )
        if self.objective is not None:
            for field in ("learn", "forget"):
                self._check_objective(field)
        return self

    def _check_objective(self, field: str) -> None:
        if getattr(self.objective, f"w_{field}") == 0:
            return
        metric = getattr(self.objective, field)
        kind, _, name = metric.rpartition("/")
        paired = {"new": ["bits_per_byte"], "old": ["bits_per_byte"], "probes": ["accuracy", "mean_log_probability"]}
        known = paired.get(kind, ["acc", "mean_log_probability"])
        if name not in known:
            raise ValueError(
                f"objective.{field}: arms are compared item by item, so {kind or 'a task'} can be judged by "
                f"{' or '.join(known)}, not by {name!r}."
            )
        if kind in ("new", "old"):
            if not getattr(self.evaluate, kind):
                raise ValueError(
                    f"objective.{field}: {metric} needs data: name text files under evaluate.{kind}, or set "
                    f"objective.w_{field} to 0."
                )
        elif kind == "probes":
            if self.evaluate.probes is None:
                raise ValueError(f"objective.{field}: {metric} needs evaluate.probes.")
        elif not self.evaluate.tasks:
            raise ValueError(f"objective.{field}: {metric} is of no text, and evaluate.tasks names no task.")


def _first_mistake(error: ValidationError) -> str:
    """One line for what pydantic found: the place, what is wrong and how many more there are."""
    first, *others = error.errors()
    place = ""
    for part in first["loc"]:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part)
    message = re.sub(r"^(Value error|Assertion failed), ", "", first["msg"]).rstrip(".")
    if first["type"] == "extra_forbidden":
        message = "there is no such setting"
    elif first["type"] == "missing":
        message = "this is missing"
    # A check over several fields names the one that it means itself.
    line = message if not place else f"{place}.{message}" if _names_field(message) else f"{place}: {message}"
    return f"{line} (and {len(others)} more mistakes)." if others else f"{line}."


def _names_field(message: str) -> bool:
    return bool(re.match(r"[a-z_]+(\[\d+\])?(\.[a-z_]+)?: ", message))


def _beside(config: TrialsConfig, folder: Path) -> TrialsConfig:
    def resolve(name: str) -> str:
        return str(folder / name) if not Path(name).is_absolute() and (folder / name).exists() else name

    evaluate, train = config.evaluate, config.train
    found: dict[str, Any] = {
        kind: [resolve(name) for name in getattr(evaluate, kind)] for kind in ("new", "old", "tasks")
    }
    if evaluate.probes is not None:
        found["probes"] = resolve(evaluate.probes)
    return config.model_copy(
        update={
            "model": resolve(config.model),
            "arms": [
                arm.model_copy(update={"files": arm.files and [resolve(name) for name in arm.files]})
                for arm in config.arms
            ],
            "train": train.model_copy(update={"files": [resolve(name) for name in train.files]}),
            "evaluate": evaluate.model_copy(update=found),
        }
    )
