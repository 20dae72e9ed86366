"""All fields of a report, and the figures that follow from several of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import model_validator

from ..config import DiagnosisConfig
from .base import SCHEMA_VERSION, Record, relative_depth
from .diagnosis import HEADLINE, Diagnosis, Lens, TaskParticle
from .model import ModelFacts
from .plan import LayerPlan, PlanRecord
from .probes import ProbeFacts
from .sensitivity import Sensitivity
from .training import TrainingOutcome


@dataclass(frozen=True)
class Change:
    """A figure of the first diagnosis against that of the latest.

    Args:
        before, after (`float`, *optional*): The two; `None` where there is none.
    """

    before: float | None
    after: float | None

    @property
    def difference(self) -> float | None:
        """After minus before; `None` where one of them is missing."""
        return None if self.before is None or self.after is None else self.after - self.before


class ReportData(Record):
    """All fields of a report; [`LayerTracerReport`] adds files.

    Args:
        schema_version (`int`): Version of this layout.
        created (`str`): UTC time in ISO 8601.
        versions (`dict[str, str]`): Versions of the libraries that measured.
        model ([`ModelFacts`]): The model.
        settings ([`DiagnosisConfig`]): The settings of every diagnosis.
        probes ([`ProbeFacts`]): What every diagnosis asked.
        diagnoses (`list[Diagnosis]`):
            What was measured, in the order of measurement; none of a model that trained with a plan, but could not be
            measured. The notes then say why.
        plans (`list[PlanRecord]`): What to train, each with the step from which it holds, in that order.
        training ([`TrainingOutcome`], *optional*): The training run.
        notes (`list[str]`): What a reader must know to read the numbers right.
    """

    schema_version: int = SCHEMA_VERSION
    created: str
    versions: dict[str, str]
    model: ModelFacts
    settings: DiagnosisConfig
    probes: ProbeFacts
    diagnoses: list[Diagnosis]
    plans: list[PlanRecord] = []
    training: TrainingOutcome | None = None
    notes: list[str] = []

    @property
    def num_layers(self) -> int:
        return self.model.num_layers

    @property
    def is_measured(self) -> bool:
        """Whether the model was diagnosed at all."""
        return bool(self.diagnoses)

    @property
    def first(self) -> Diagnosis | None:
        """The diagnosis before training; `None` where nothing was measured."""
        return self.diagnoses[0] if self.diagnoses else None

    @property
    def latest(self) -> Diagnosis | None:
        """The last diagnosis, the first where there is only one; `None` where nothing was measured."""
        return self.diagnoses[-1] if self.diagnoses else None

    @property
    def is_repeated(self) -> bool:
        """Whether the model was diagnosed again during or after training."""
        return len(self.diagnoses) > 1

    @property
    def sensitivity(self) -> Sensitivity | None:
        """Layer Sensitivity in the latest diagnosis."""
        return self.latest.sensitivity if self.latest else None

    @property
    def lens(self) -> Lens | None:
        """The lens curves of the latest diagnosis."""
        return self.latest.lens if self.latest else None

    @property
    def task_particle(self) -> TaskParticle | None:
        """The Task Particle in the latest diagnosis."""
        return self.latest.task_particle if self.latest else None

    @property
    def block_influence(self) -> list[float] | None:
        """Block influence in the latest diagnosis."""
        return self.latest.block_influence if self.latest else None

    @property
    def plan(self) -> LayerPlan | None:
        """The latest plan."""
        return self.plans[-1].plan if self.plans else None

    def set_plan(self, plan: LayerPlan, step: int = 0) -> None:
        """Puts a plan into the report. Plans from the same step on, or from later ones, are dropped.

        Args:
            plan ([`LayerPlan`]): The plan.
            step (`int`, *optional*, defaults to `0`): The optimizer step from which it holds.
        """
        self.plans = [*(earlier for earlier in self.plans if earlier.step < step), PlanRecord(step=step, plan=plan)]

    def relative_depth(self, layer: float | None) -> float | None:
        """Where along the depth of this model a layer lies, as [`relative_depth`][records.relative_depth] counts it.

        Args:
            layer (`float`, *optional*): Index of the layer.

        Returns:
            `float`: From 0, the embedding, to 1, the last layer; `None` for no layer.
        """
        return None if layer is None else relative_depth(layer, self.num_layers)

    def headline(self) -> dict[str, float | None]:
        """The figures of [`Diagnosis.headline`] of the latest diagnosis; each is `None` where nothing was measured.

        Returns:
            `dict[str, float | None]`: By name.
        """
        return self.latest.headline() if self.latest else dict.fromkeys(HEADLINE)

    def placed_headline(self) -> dict[str, float | None]:
        """Where the task particle and the most sensitive layer lie, also as fractions of the depth, and how sensitive.

        Returns:
            `dict[str, float | None]`: Figures by name, so that models of different depth compare.
        """
        found = self.headline()
        return {
            "task_particle": found["task_particle"],
            "task_particle_depth": self.relative_depth(found["task_particle"]),
            "vulnerable_layer": found["vulnerable_layer"],
            "vulnerable_layer_depth": self.relative_depth(found["vulnerable_layer"]),
            "highest_sensitivity": found["highest_sensitivity"],
            "shallow_minus_deep": found["shallow_minus_deep"],
        }

    def changes(self) -> dict[str, Change]:
        """Before and after: the figures of [`Diagnosis.headline`], first against latest.

        Returns:
            `dict[str, Change]`: By name; both sides are equal where there is a single diagnosis.
        """
        if self.first is None:
            return {name: Change(None, None) for name in HEADLINE}
        after = self.headline()
        return {name: Change(value, after[name]) for name, value in self.first.headline().items()}

    def layer_rows(self, diagnosis: Diagnosis | None = None) -> list[dict[str, Any]]:
        """What is known of each layer, as a table.

        Args:
            diagnosis ([`Diagnosis`], *optional*): The diagnosis to take the values from; the latest by default.

        Returns:
            `list[dict[str, Any]]`: One row per layer: `layer`, `relative_depth`, `kind`, `parameters`,
                `layer_sensitivity`, `layer_sensitivity_stderr`, `block_influence`, `lens_probability`,
                `lens_probability_stderr` and `trained`; `None` where something was not measured or is not known. Of
                perturbations after the first, the columns end in the perturbation's name.
        """
        found = diagnosis or self.latest
        rows = []
        for layer, facts in enumerate(self.model.layers):
            row = {
                "layer": layer,
                "relative_depth": self.relative_depth(layer),
                "kind": facts.kind,
                "parameters": facts.size,
                "layer_sensitivity": None,
                "layer_sensitivity_stderr": None,
            }
            for name, sensitivity in found.sensitivities.items() if found else ():
                end = "" if name == found.perturbation else f"_{name}"
                row[f"layer_sensitivity{end}"] = sensitivity.mean[layer]
                row[f"layer_sensitivity_stderr{end}"] = sensitivity.stderr[layer] if sensitivity.stderr_known else None
            lens = found.lens if found else None
            row |= {
                "block_influence": _at(found.block_influence, layer) if found else None,
                "lens_probability": _at(lens.mean_probability, layer + 1) if lens else None,
                "lens_probability_stderr": lens.stderr[layer + 1] if lens and lens.stderr_known else None,
                "trained": None if self.plan is None else layer in self.plan.trained_layers,
            }
            rows.append(row)
        return rows

    @model_validator(mode="after")
    def _parts_agree(self) -> ReportData:
        if len(self.probes.items) != self.probes.count:
            raise ValueError(f"probes.items has {len(self.probes.items)} entries, not {self.probes.count}")
        for number, diagnosis in enumerate(self.diagnoses):
            try:
                diagnosis.check(self.num_layers, self.probes.count, whole=number == 0)
            except ValueError as error:
                raise ValueError(f"diagnosis {number}: {error}") from error
        for steps, what in (
            ([diagnosis.step for diagnosis in self.diagnoses], "diagnoses"),
            ([record.step for record in self.plans], "plans"),
        ):
            if steps != sorted(steps):
                raise ValueError(f"the {what} are not in the order of their steps")
        for record in self.plans:
            if record.plan.num_layers != self.num_layers:
                raise ValueError(f"the plan is for {record.plan.num_layers} layers, the model has {self.num_layers}")
        return self


def _at(values: list[float], index: int) -> float | None:
    """A value of a list, which is empty where nothing was measured."""
    return values[index] if values else None
