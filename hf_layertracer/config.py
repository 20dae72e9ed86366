"""Settings of a diagnosis and of a traced training run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from .diagnosis.perturbations import PERTURBATIONS
from .errors import LayerTracerError


ESTIMATORS = ("exact", "gradient")


@dataclass
class DiagnosisConfig:
    """How a model is diagnosed.

    > Parameters that control the perturbation

    Args:
        perturbation (`str`, *optional*, defaults to `"mask"`):
            What is done to a layer's output: `"mask"` sets random hidden dimensions to zero, `"skip"` leaves the layer
            out, `"noise"` adds Gaussian noise.
        mask_ratio (`float`, *optional*, defaults to `0.3`):
            Fraction of the hidden dimensions that a mask sets to zero.
        noise_scale (`float`, *optional*, defaults to `0.5`):
            Standard deviation of the noise, in units of the hidden state's own at that position.
        repeats (`int`, *optional*):
            Random masks, or noise draws, per probe; by default as many as make 256 draws over all probes, which keeps
            the standard error near 0.02 bits. `"skip"` is not random and always runs once.
        diagnosis_seed (`int`, *optional*, defaults to `0`):
            Seed of all random draws: perturbations, bootstrap and, in a traced run, probes from a dataset.

    > Parameters that control the task particle

    Args:
        rise (`float`, *optional*, defaults to `0.1`):
            Rise of the lens probability, as a fraction of its maximum over the layers, that marks the task particle.
        min_probability (`float`, *optional*, defaults to `0.01`):
            A probe whose lens probability never reaches this is unresolved.

    > Parameters that control the computation

    Args:
        estimator (`str`, *optional*, defaults to `"exact"`):
            `"exact"` perturbs every layer and measures; `"gradient"` estimates all layers from a few backward passes.
        diagnosis_batch_size (`int`, *optional*): Probes per forward pass; from the memory budget by default.
        memory_budget (`int`, *optional*):
            Bytes that the diagnosis may use beyond the model; by default half of what is free, at most 4 GiB.
        layers_path (`str`, *optional*):
            Dotted path of the model's list of decoder layers, for a model where the search for it goes wrong.
    """

    perturbation: str = field(
        default="mask", metadata={"help": "What is done to a layer's output.", "choices": tuple(PERTURBATIONS)}
    )
    mask_ratio: float = field(default=0.3, metadata={"help": "Fraction of the hidden dimensions that a mask zeroes."})
    noise_scale: float = field(
        default=0.5, metadata={"help": "Noise, in units of the hidden state's own standard deviation."}
    )
    repeats: int | None = field(
        default=None, metadata={"help": "Random masks or noise draws per probe; by default 256 over all probes."}
    )
    diagnosis_seed: int = field(default=0, metadata={"help": "Seed of all random draws of a diagnosis."})
    rise: float = field(default=0.1, metadata={"help": "Relative rise that marks the task particle."})
    min_probability: float = field(
        default=0.01, metadata={"help": "Below this at every layer, a probe is unresolved."}
    )
    estimator: str = field(
        default="exact",
        metadata={"help": "exact, or gradient: a faster estimate, labelled as one.", "choices": ESTIMATORS},
    )
    diagnosis_batch_size: int | None = field(
        default=None, metadata={"help": "Probes per forward pass; from the memory budget by default."}
    )
    memory_budget: int | None = field(
        default=None, metadata={"help": "Bytes that a diagnosis may use beyond the model."}
    )
    layers_path: str | None = field(
        default=None, metadata={"help": "Dotted path of the list of decoder layers, if it is not found."}
    )

    def __post_init__(self) -> None:
        _one_of("perturbation", self.perturbation, PERTURBATIONS)
        _one_of("estimator", self.estimator, ESTIMATORS)
        _within("mask_ratio", self.mask_ratio, 0, 1)
        _within("rise", self.rise, 0, 1)
        _within("min_probability", self.min_probability, 0, 1)
        _positive("noise_scale", self.noise_scale)
        _seed("diagnosis_seed", self.diagnosis_seed)
        for name in ("repeats", "diagnosis_batch_size", "memory_budget"):
            _whole_number(name, getattr(self, name))

    def to_dict(self) -> dict[str, Any]:
        """The settings as they go into a report."""
        return asdict(self)


@dataclass
class LayerTracerConfig(DiagnosisConfig):
    """How a training run is traced: the `layertracer_config` argument of the trainer, readable by `HfArgumentParser`.

    All settings of [`DiagnosisConfig`] belong to it.

    > Parameters that control what trains

    Args:
        strategy (`str`, *optional*, defaults to `"freeze-deep"`): The strategy, as in [`make_plan`].
        freeze_ratio (`float`, *optional*):
            Fraction of the layers that is frozen, for strategies that take one; they take 0.5 by default.
        train_layers (`str`, *optional*):
            Of the strategy `"explicit"`: indices, ranges (`"0-7"`), slices (`"::2"`) or a regular expression.
        max_trainable_parameters (`int`, *optional*): Of the strategy `"budget"`.
        max_memory (`int`, *optional*): Of the strategy `"budget"`: bytes for weights, gradients and Adam's moments.
        plan_seed (`int`, *optional*): Of the strategy `"random"`, which takes 0 by default.
        train_embeddings, train_norm, train_head (`bool`, *optional*): Overrule the strategy.

    > Parameters that control when the model is diagnosed, and with what

    Args:
        report (`str`, *optional*):
            A saved report of this model (file, folder or Hub id) to take the measurements from, instead of diagnosing.
        probes (`str`, *optional*):
            File or folder of probes; by default they are drawn from the evaluation or training dataset.
        num_probes (`int`, *optional*, defaults to `64`): How many probes to draw.
        diagnose_steps (`int`, *optional*): Diagnose again every so many steps.
        diagnose_after (`bool`, *optional*, defaults to `False`): Diagnose again at the end of training.
    """

    strategy: str = field(default="freeze-deep", metadata={"help": "How the layers that train are chosen."})
    freeze_ratio: float | None = field(default=None, metadata={"help": "Fraction of the layers that is frozen."})
    train_layers: str | None = field(default=None, metadata={"help": "Layers that train (strategy explicit)."})
    max_trainable_parameters: int | None = field(default=None, metadata={"help": "Limit of the strategy budget."})
    max_memory: int | None = field(default=None, metadata={"help": "Limit of the strategy budget, in bytes."})
    plan_seed: int | None = field(default=None, metadata={"help": "Seed of the strategy random."})
    train_embeddings: bool | None = field(default=None, metadata={"help": "Train the embeddings, or freeze them."})
    train_norm: bool | None = field(default=None, metadata={"help": "Train the final norm, or freeze it."})
    train_head: bool | None = field(default=None, metadata={"help": "Train the output head, or freeze it."})
    report: str | None = field(default=None, metadata={"help": "Report to take the measurements from."})
    probes: str | None = field(default=None, metadata={"help": "File or folder of probes."})
    num_probes: int = field(default=64, metadata={"help": "How many probes to draw."})
    diagnose_steps: int | None = field(default=None, metadata={"help": "Diagnose again every so many steps."})
    diagnose_after: bool = field(default=False, metadata={"help": "Diagnose again at the end of training."})

    def __post_init__(self) -> None:
        # A wrong value is an error here, not an hour later when the dataset has been tokenized.
        super().__post_init__()
        for name in ("num_probes", "diagnose_steps", "max_trainable_parameters", "max_memory"):
            _whole_number(name, getattr(self, name))
        if self.freeze_ratio is not None and not 0 < self.freeze_ratio < 1:
            raise LayerTracerError(f"freeze_ratio must lie between 0 and 1, not at {self.freeze_ratio!r}.")
        if self.plan_seed is not None:
            _seed("plan_seed", self.plan_seed)
        from .planning import checked_strategy

        checked_strategy(self.strategy, {k: v for k, v in self.plan_options().items() if k not in _OUTSIDE})

    def diagnosis(self) -> DiagnosisConfig:
        """The settings of a diagnosis alone."""
        return DiagnosisConfig(**{f.name: getattr(self, f.name) for f in fields(DiagnosisConfig)})

    def plan_options(self) -> dict[str, Any]:
        """The arguments of [`make_plan`] that are set."""
        return {name: getattr(self, name) for name in (*_OPTIONS, *_OUTSIDE) if getattr(self, name) is not None}


_OPTIONS = ("freeze_ratio", "train_layers", "max_trainable_parameters", "max_memory", "plan_seed")
_OUTSIDE = ("train_embeddings", "train_norm", "train_head")


def _seed(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise LayerTracerError(f"{name} must be a whole number of at least 0, not {value!r}.")


def _whole_number(name: str, value: Any) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise LayerTracerError(f"{name} must be a whole number of at least 1, not {value!r}.")


def _one_of(name: str, value: Any, choices: Iterable[str]) -> None:
    if value not in choices:
        raise LayerTracerError(f"{name} must be one of {', '.join(choices)}, not {value!r}.")


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low < value <= high:
        raise LayerTracerError(f"{name} must lie above {low} and at most at {high}, not at {value!r}.")


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise LayerTracerError(f"{name} must be above 0, not {value!r}.")
