"""Settings of a diagnosis."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_type_hints

from .checks import all_as_meant, one_of, positive, whole_number, within
from .diagnosis.perturbations import PERTURBATIONS
from .errors import LayerTracerError


COMPUTE_DTYPES = ("auto", "model", "bfloat16")
MOST_REPEATS = 100_000


@dataclass
class DiagnosisConfig:
    """How a model is diagnosed.

    > Parameters that control the perturbation

    Args:
        perturbation (`str`, *optional*, defaults to `"mask,skip"`):
            What is done to a layer's output: `"mask"` sets random hidden dimensions to zero, `"skip"` leaves the layer
            out, `"noise"` adds Gaussian noise, `"mixer"` lets the layer's token mixer return zero. Several are measured in
            one go: `"skip,mask"`, or a list of names.
        mask_ratio (`float`, *optional*, defaults to `0.3`):
            Fraction of the hidden dimensions that a mask sets to zero.
        noise_scale (`float`, *optional*, defaults to `0.5`):
            Standard deviation of the noise, in units of the hidden state's own at that position.
        context_mask_ratio (`float`, *optional*, defaults to `0.3`):
            Of the context sensitivity: fraction of a prompt's positions, never the last, whose embeddings are replaced by
            the mean embedding of the prompt.
        repeats (`int`, *optional*):
            Random masks, or noise draws, per probe; by default as many as make 160 draws over all probes, which keeps
            the standard error near 0.02 bits. `"skip"` is not random and always runs once.
        until_stderr (`float`, *optional*):
            Draw until no layer's standard error is above this, rather than a fixed number of times. `repeats` is then the
            limit; by default the limit is 2048 draws over all probes. The report says why the measurement stopped.
        until_boundary (`float`, *optional*):
            Draw until the layers above and below this fraction of the depth can be told apart: `0.5` compares the two
            halves, `1 - freeze_ratio` what a plan trains and freezes. With `until_stderr`, both must hold.
        diagnosis_seed (`int`, *optional*, defaults to `0`):
            Seed of all random draws: perturbations, bootstrap and, in a traced run, probes from a dataset.

        skip_probes (`int`, *optional*):
            Measure perturbations that are not random, such as `"skip"`, on a seeded sample of this many probes; on all
            probes by default.

    > Parameters that control the task particle

    Args:
        rise (`float`, *optional*, defaults to `0.1`):
            Rise of the lens probability, as a fraction of its maximum over the layers, that marks the task particle.
        min_probability (`float`, *optional*, defaults to `0.01`):
            A probe whose lens probability never reaches this is unresolved.

    > Parameters that control the computation

    Args:
        skip_long (`bool`, *optional*, defaults to `False`):
            Leave probes out that are longer than the model's context, and count them, where they are refused otherwise.
        compute_dtype (`str`, *optional*, defaults to `"auto"`):
            What random perturbations are replayed in: `"model"`, its own data type; `"bfloat16"`, a float32 model's matrix
            products in bfloat16; `"auto"`, bfloat16 where the hardware has it and the model is wide enough to gain by it.
            A sample is measured in both, and bfloat16 given up where they differ; the report says so.
        diagnosis_batch_size (`int`, *optional*): Probes per forward pass; from the memory budget by default.
        memory_budget (`int`, *optional*):
            Bytes that the diagnosis may use beyond the model; by default half of what is free, at most 4 GiB.
        layers_path (`str`, *optional*):
            Dotted path of the model's list of decoder layers, for a model where the search for it goes wrong.

    Example:

    ```python
    >>> from hf_layertracer import DiagnosisConfig
    >>> DiagnosisConfig(perturbation="skip").perturbations
    ('skip',)
    ```
    """

    perturbation: str = field(
        default="mask,skip",
        metadata={"help": f"Done to a layer: {', '.join(PERTURBATIONS)}; several with commas."},
    )
    mask_ratio: float = field(default=0.3, metadata={"help": "Fraction of the hidden dimensions that a mask zeroes."})
    noise_scale: float = field(
        default=0.5, metadata={"help": "Noise, in units of the hidden state's own standard deviation."}
    )
    context_mask_ratio: float = field(
        default=0.3, metadata={"help": "Fraction of a prompt's positions that lose their embedding."}
    )
    repeats: int | None = field(
        default=None, metadata={"help": "Random masks or noise draws per probe; by default 160 over all probes."}
    )
    until_stderr: float | None = field(
        default=None, metadata={"help": "Draw until no standard error is above this; repeats is then the limit."}
    )
    until_boundary: float | None = field(
        default=None,
        metadata={"help": "Draw until layers above and below this fraction of the depth can be told apart."},
    )
    skip_probes: int | None = field(
        default=None, metadata={"help": "Probes for perturbations that are not random; all by default."}
    )
    diagnosis_seed: int = field(default=0, metadata={"help": "Seed of all random draws of a diagnosis."})
    rise: float = field(default=0.1, metadata={"help": "Relative rise that marks the task particle."})
    min_probability: float = field(
        default=0.01, metadata={"help": "Below this at every layer, a probe is unresolved."}
    )
    skip_long: bool = field(default=False, metadata={"help": "Leave probes out that exceed the model's context."})
    compute_dtype: str = field(
        default="auto",
        metadata={"help": "What random perturbations are replayed in.", "choices": COMPUTE_DTYPES},
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
            if not isinstance(self.perturbation, Iterable) or not all(isinstance(n, str) for n in self.perturbation):
                raise LayerTracerError(
                    f"perturbation must be a name or a list of names, not {self.perturbation!r:.60}."
                )
            self.perturbation = ",".join(self.perturbation)
        all_as_meant(self, _hints())
        for name in self.perturbations:
            one_of("perturbation", name, PERTURBATIONS)
        one_of("compute_dtype", self.compute_dtype, COMPUTE_DTYPES)
        within("mask_ratio", self.mask_ratio, 0, 1)
        within("context_mask_ratio", self.context_mask_ratio, 0, 1)
        within("rise", self.rise, 0, 1)
        within("min_probability", self.min_probability, 0, 1)
        positive("noise_scale", self.noise_scale)
        if self.until_stderr is not None:
            positive("until_stderr", self.until_stderr)
        if self.until_boundary is not None:
            within("until_boundary", self.until_boundary, 0, 1)
        whole_number("diagnosis_seed", self.diagnosis_seed, least=0)
        if isinstance(self.repeats, int) and self.repeats > MOST_REPEATS:
            raise LayerTracerError(
                f"repeats must be at most {MOST_REPEATS}: each of them runs every probe once more through the layers behind "
                "each layer, and a thousand make errors 30 times smaller than one does."
            )
        whole_number("repeats", self.repeats)
        for name in ("skip_probes", "diagnosis_batch_size", "memory_budget"):
            whole_number(name, getattr(self, name))

    @classmethod
    def of(cls, settings: DiagnosisConfig | Mapping[str, Any] | None) -> DiagnosisConfig:
        """The settings of a diagnosis, whatever they come in.

        Args:
            settings ([`DiagnosisConfig`] or `dict`, *optional*):
                Settings, among them those of a traced run; names and values; or nothing, for the defaults.

        Returns:
            [`DiagnosisConfig`]: The settings of a diagnosis alone.

        Raises:
            LayerTracerError: They are something else, or hold an unknown name.

        Example:

        ```python
        >>> from hf_layertracer import DiagnosisConfig
        >>> DiagnosisConfig.of({"perturbation": "skip"}).perturbation
        'skip'
        ```
        """
        names = [own.name for own in fields(DiagnosisConfig)]
        if settings is None:
            return DiagnosisConfig()
        if isinstance(settings, DiagnosisConfig):
            if type(settings) is DiagnosisConfig:
                return settings
            return DiagnosisConfig(**{name: getattr(settings, name) for name in names})
        return DiagnosisConfig(**known_settings(settings, names))

    @property
    def perturbations(self) -> tuple[str, ...]:
        """The names of the perturbations, in the order in which they are reported."""
        return tuple(dict.fromkeys(name.strip() for name in self.perturbation.split(",")))

    def to_dict(self) -> dict[str, Any]:
        """The settings as they go into a report."""
        return asdict(self)


def known_settings(settings: Any, names: Iterable[str]) -> dict[str, Any]:
    """Settings that came as names and values.

    Args:
        settings (`Any`): What was given.
        names (`Iterable[str]`): The names that there are.

    Returns:
        `dict[str, Any]`: The same.

    Raises:
        LayerTracerError: It is no mapping, or holds other names.
    """
    if not isinstance(settings, Mapping):
        raise LayerTracerError(f"Settings are a config or a dictionary, not {type(settings).__name__}.")
    unknown = sorted(str(name) for name in set(settings) - set(names))
    if unknown:
        raise LayerTracerError(
            f"There is no setting {', '.join(unknown):.120}. There are: {', '.join(sorted(names))}."
        )
    return dict(settings)


@functools.cache
def _hints() -> dict[str, Any]:
    return get_type_hints(DiagnosisConfig)
