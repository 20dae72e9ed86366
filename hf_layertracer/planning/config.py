"""Settings of a plan, and of a training run that is diagnosed, planned and reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from typing import TYPE_CHECKING, Any, get_type_hints

from ..checks import all_as_meant, whole_number
from ..config import DiagnosisConfig, known_settings
from ..errors import LayerTracerError
from ..text import parse_bytes
from .fitting import split_limit
from .strategies import STRATEGIES, all_options, strategy_named


_OPTIONS = all_options()
_SEVERAL = {name for name, (_, own) in _OPTIONS.items() if own.metadata["several"]}


@dataclass
class _Chosen:
    strategy: str = field(
        default="freeze-deep",
        metadata={"help": f"How the layers that train are chosen: {', '.join(STRATEGIES)}."},
    )


def _setting(name: str) -> tuple[str, Any, Any]:
    """An option as a field that is `None` where nothing was said: what was said is checked, the default included."""
    owner, own = _OPTIONS[name]
    usual = "" if own.default is None else f" By default {own.default}."
    # `HfArgumentParser` takes what it knows of the metadata, and fails on anything else.
    return (
        name,
        get_type_hints(owner)[name] | None,
        field(default=None, metadata={"help": own.metadata["help"] + usual}),
    )


_WithOptions = make_dataclass("_WithOptions", map(_setting, _OPTIONS), bases=(_Chosen,))
_OUTSIDE = ("train_embeddings", "train_norm", "train_head")


@dataclass
class PlanConfig(_WithOptions):  # type: ignore[valid-type, misc]
    """What trains: a strategy, its options, and what overrules it.

    Every option of every strategy is a field; `layertracer plan --help` lists them. Those that the chosen strategy takes
    have its defaults, the others are `None`, and setting one of these is refused. So `dataclasses.replace` with another
    strategy also has to set what that does not take to `None`: `replace(config, strategy="full", freeze_ratio=None)`.

    Args:
        strategy (`str`, *optional*, defaults to `"freeze-deep"`): Name of the strategy.
        train_embeddings, train_norm, train_head (`bool`, *optional*): Overrule the strategy.
        plan (`str`, *optional*):
            A plan file to take instead of all this: `layertracer plan --out` and `layertracer trials run --halving` write
            them.
        options: The strategy's options, such as `freeze_ratio` (`float`, *optional*, defaults to `0.5`).

    Raises:
        LayerTracerError: Unknown strategy, an option that it does not take, a value out of range, or a plan file beside a
            strategy.
    """

    train_embeddings: bool | None = field(default=None, metadata={"help": "Train the embeddings, or freeze them."})
    train_norm: bool | None = field(default=None, metadata={"help": "Train the final norm, or freeze it."})
    train_head: bool | None = field(default=None, metadata={"help": "Train the output head, or freeze it."})
    plan: str | None = field(default=None, metadata={"help": "Plan file to take instead of a strategy."})

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        all_as_meant(self, {name: hint for name, hint in hints.items() if name not in _SEVERAL})
        if not isinstance(self.strategy, str):
            raise LayerTracerError(f"strategy must be the name of one, not {self.strategy!r:.60}.")
        given = {name: value for name in _OPTIONS if (value := getattr(self, name)) is not None}
        if self.plan is not None and (self.strategy != "freeze-deep" or given or self.plan_options()):
            raise LayerTracerError(
                f"The plan file {self.plan} says what trains: leave the strategy and its options out."
            )
        # A wrong value is an error here, not an hour later when the dataset has been tokenized.
        chosen = strategy_named(self.strategy)
        chosen.check_options(split_limit(chosen, given)[0])
        if self.plan is None:
            for name in set(chosen.option_names) - given.keys():
                setattr(self, name, _OPTIONS[name][1].default)

    def strategy_options(self) -> dict[str, Any]:
        """The options of strategies that differ from their defaults."""
        values = {name: (getattr(self, name), own.default) for name, (_, own) in _OPTIONS.items()}
        return {name: value for name, (value, default) in values.items() if value not in (None, default)}

    def plan_options(self) -> dict[str, Any]:
        """The arguments of [`make_plan`] that differ from their defaults, `strategy` apart."""
        return self.strategy_options() | {
            name: getattr(self, name) for name in _OUTSIDE if getattr(self, name) is not None
        }


@dataclass
class LayerTracerConfig(PlanConfig, DiagnosisConfig):
    """How a training run is traced: the `layertracer_config` argument of the trainer, readable by `HfArgumentParser`.

    It has all settings of [`DiagnosisConfig`] and [`PlanConfig`], and those that follow. No name collides with
    `TrainingArguments`.

    > Parameters that control when the model is diagnosed, and with what

    Args:
        report (`str`, *optional*):
            A saved report of this model (file, folder or Hub id) to take the measurements from, instead of diagnosing.
        probes (`str`, *optional*):
            File or folder of probes; by default they are drawn from the evaluation or training dataset.
        num_probes (`int`, *optional*, defaults to `64`): How many probes to draw.
        quick_look (`bool`, *optional*):
            Take a quick look instead of a full diagnosis, or never do. By default, a run takes one where a full diagnosis
            would be more than a tenth of the training's arithmetic, unless `perturbation`, `repeats`, `until_stderr`,
            `until_boundary`, `skip_probes` or the strategy's `measure` say how to measure, or probes are given.
        diagnose_steps (`int`, *optional*): Diagnose again every so many steps.
        diagnose_after (`bool`, *optional*, defaults to `False`): Diagnose again at the end of training.

    > Parameters that save work

    Args:
        prefix_cache (`str`, *optional*):
            Folder to keep the output of the frozen layers at the bottom in, row by row, so that they rest from the second
            epoch on, and in later runs of the same model on the same rows.
        prefix_cache_size (`str`, *optional*):
            How large that folder may get, such as `"50GB"`; half of what is free on the disk by default.

    Raises:
        LayerTracerError: A value that cannot be used.

    Example:

    ```python
    >>> from hf_layertracer import LayerTracerConfig
    >>> LayerTracerConfig(strategy="freeze-shallow", freeze_ratio=0.25, diagnosis_seed=1).plan_options()
    {'freeze_ratio': 0.25}
    ```
    """

    report: str | None = field(default=None, metadata={"help": "Report to take the measurements from."})
    probes: str | None = field(default=None, metadata={"help": "File or folder of probes."})
    num_probes: int = field(default=64, metadata={"help": "How many probes to draw."})
    quick_look: bool | None = field(
        default=None, metadata={"help": "Take a quick look, or never do; by default where the training is short."}
    )
    diagnose_steps: int | None = field(default=None, metadata={"help": "Diagnose again every so many steps."})
    diagnose_after: bool = field(default=False, metadata={"help": "Diagnose again at the end of training."})
    prefix_cache: str | None = field(
        default=None, metadata={"help": "Folder for the output of the frozen layers at the bottom."}
    )
    prefix_cache_size: str | None = field(default=None, metadata={"help": "How large that folder may get: 50GB."})

    if TYPE_CHECKING:
        # The fields come from the strategies, which a type checker does not run.
        def __init__(self, **settings: Any) -> None: ...

    def __post_init__(self) -> None:
        PlanConfig.__post_init__(self)
        DiagnosisConfig.__post_init__(self)
        for name in ("num_probes", "diagnose_steps"):
            whole_number(name, getattr(self, name))
        if self.prefix_cache_size is not None:
            parse_bytes(self.prefix_cache_size, "prefix_cache_size")  # refuses what is no amount

    def diagnosis(self) -> DiagnosisConfig:
        """The settings of a diagnosis alone."""
        return DiagnosisConfig.of(self)

    @classmethod
    def of(cls, settings: LayerTracerConfig | DiagnosisConfig | Mapping[str, Any] | str | None) -> LayerTracerConfig:
        """The settings of a traced run, whatever they come in.

        Args:
            settings ([`LayerTracerConfig`], `dict` or `str`, *optional*):
                Settings; those of a diagnosis alone; names and values; the name of a strategy; or nothing, for the
                defaults.

        Returns:
            [`LayerTracerConfig`]: The settings.

        Raises:
            LayerTracerError: They are something else, or hold an unknown name or a wrong value.

        Example:

        ```python
        >>> from hf_layertracer import LayerTracerConfig
        >>> LayerTracerConfig.of("full") == LayerTracerConfig.of({"strategy": "full"})
        True
        ```
        """
        if isinstance(settings, LayerTracerConfig):
            return settings
        if isinstance(settings, DiagnosisConfig):
            return cls(**settings.to_dict())
        if settings is None or isinstance(settings, str):
            return cls() if settings is None else cls(strategy=settings)
        return cls(**known_settings(settings, [own.name for own in fields(cls)]))
