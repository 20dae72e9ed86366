"""Settings of a diagnosis and of a traced training run."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from .errors import LayerTracerError


PERTURBATIONS = ("mask", "skip", "noise")
ESTIMATORS = ("exact", "gradient")


@dataclass
class DiagnosisConfig:
    """How a model is diagnosed.

    > Parameters that control the disturbance

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
        seed (`int`, *optional*, defaults to `0`): Seed of all random draws.

    > Parameters that control the task particle

    Args:
        rise (`float`, *optional*, defaults to `0.1`):
            Rise of the lens probability, as a fraction of its maximum over the layers, that marks the task particle.
        min_probability (`float`, *optional*, defaults to `0.01`):
            A probe whose lens probability never reaches this is unresolved.

    > Parameters that control the computation

    Args:
        estimator (`str`, *optional*, defaults to `"exact"`):
            `"exact"` disturbs every layer and measures; `"gradient"` estimates all layers from a few backward passes.
        batch_size (`int`, *optional*): Probes per forward pass; from the memory budget by default.
        memory_budget (`int`, *optional*):
            Bytes that the diagnosis may use beyond the model; by default half of what is free, at most 4 GiB.
        layers (`str`, *optional*):
            Dotted path of the model's list of decoder layers, for a model where the search for it goes wrong.
    """

    perturbation: str = field(
        default="mask", metadata={"help": "Disturbance: mask, skip or noise.", "choices": PERTURBATIONS}
    )
    mask_ratio: float = field(default=0.3, metadata={"help": "Fraction of the hidden dimensions that a mask zeroes."})
    noise_scale: float = field(default=0.5, metadata={"help": "Noise, in units of the hidden state's own deviation."})
    repeats: int | None = field(default=None, metadata={"help": "Random masks or noise draws per probe."})
    seed: int = field(default=0, metadata={"help": "Seed of all random draws."})
    rise: float = field(default=0.1, metadata={"help": "Relative rise that marks the task particle."})
    min_probability: float = field(
        default=0.01, metadata={"help": "Below this at every layer, a probe is unresolved."}
    )
    estimator: str = field(default="exact", metadata={"help": "exact or gradient.", "choices": ESTIMATORS})
    batch_size: int | None = field(default=None, metadata={"help": "Probes per forward pass."})
    memory_budget: int | None = field(default=None, metadata={"help": "Bytes to use beyond the model."})
    layers: str | None = field(default=None, metadata={"help": "Dotted path of the list of decoder layers."})

    def __post_init__(self) -> None:
        _one_of("perturbation", self.perturbation, PERTURBATIONS)
        _one_of("estimator", self.estimator, ESTIMATORS)
        _within("mask_ratio", self.mask_ratio, 0, 1)
        _within("rise", self.rise, 0, 1)
        _within("min_probability", self.min_probability, 0, 1)
        _positive("noise_scale", self.noise_scale)
        for name in ("repeats", "batch_size", "memory_budget"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise LayerTracerError(f"{name} must be a whole number of at least 1, not {value!r}.")

    def to_dict(self) -> dict[str, Any]:
        """The settings as they go into a report."""
        return {f.name: getattr(self, f.name) for f in fields(DiagnosisConfig)}


def _one_of(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise LayerTracerError(f"{name} must be one of {', '.join(choices)}, not {value!r}.")


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low < value <= high:
        raise LayerTracerError(f"{name} must lie above {low} and at most at {high}, not at {value!r}.")


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise LayerTracerError(f"{name} must be above 0, not {value!r}.")
