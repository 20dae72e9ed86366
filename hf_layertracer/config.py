"""Settings of a diagnosis."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from .checks import one_of, positive, whole_number, within
from .diagnosis.perturbations import PERTURBATIONS


ESTIMATORS = ("exact", "gradient")


@dataclass
class DiagnosisConfig:
    """How a model is diagnosed.

    > Parameters that control the perturbation

    Args:
        perturbation (`str`, *optional*, defaults to `"mask"`):
            What is done to a layer's output: `"mask"` sets random hidden dimensions to zero, `"skip"` leaves the layer
            out, `"noise"` adds Gaussian noise, `"mixer"` lets the layer's token mixer return zero. Several are measured in
            one go: `"skip,mask"`, or a list of names.
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
        default="mask",
        metadata={"help": f"What is done to a layer's output: {', '.join(PERTURBATIONS)}; several with commas."},
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
        if not isinstance(self.perturbation, str):
            self.perturbation = ",".join(self.perturbation)
        for name in self.perturbations:
            one_of("perturbation", name, PERTURBATIONS)
        one_of("estimator", self.estimator, ESTIMATORS)
        within("mask_ratio", self.mask_ratio, 0, 1)
        within("rise", self.rise, 0, 1)
        within("min_probability", self.min_probability, 0, 1)
        positive("noise_scale", self.noise_scale)
        whole_number("diagnosis_seed", self.diagnosis_seed, least=0)
        for name in ("repeats", "diagnosis_batch_size", "memory_budget"):
            whole_number(name, getattr(self, name))

    @property
    def perturbations(self) -> tuple[str, ...]:
        """The names of the perturbations, in the order in which they are reported."""
        return tuple(dict.fromkeys(name.strip() for name in self.perturbation.split(",")))

    def to_dict(self) -> dict[str, Any]:
        """The settings as they go into a report."""
        return asdict(self)
