"""Recipes from measurements: which mixers can go, and where one donor should hand over to another."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import LayerTracerError
from ..records import Diagnosis, ReportData, Sensitivity
from ..text import compact_ranges, with_error
from .mappings import MAPPINGS
from .recipe import HybridRecipe, MixerReplacement


def propose_hybrid(
    report: ReportData,
    other: ReportData | None = None,
    *,
    n_mixers: int | None = None,
    by: str = "mixer",
    base: str | None = None,
    other_base: str | None = None,
) -> HybridRecipe:
    """Makes a recipe of one report (whose attention can go) or of two (whose layers to take from where on).

    Of one model, the `n_mixers` layers are replaced whose loss moves the output least. Of two models that answered the
    same probes, the one that answers better gives the layers from its Task Particle on, where it begins to execute the
    task, with norm and head; the other gives the layers below.

    A report that was measured again during or after training names the model before it: the first diagnosis decides. With
    `base` elsewhere, which is then the trained model, the last one does.

    Args:
        report ([`LayerTracerReport`]): The model's report.
        other ([`LayerTracerReport`], *optional*): Of a second model of the same class.
        n_mixers (`int`, *optional*): Of one model: how many token mixers to replace.
        by (`str`, *optional*, defaults to `"mixer"`): The perturbation whose sensitivity decides.
        base (`str`, *optional*): Where the model is; its id and revision in the report by default.
        other_base (`str`, *optional*): The same of the second.

    Returns:
        [`HybridRecipe`]: A recipe with its reason in words, to be read and changed by hand.

    Raises:
        LayerTracerError: The reports lack what the choice needs.

    Example:

    ```python
    from hf_layertracer import LayerTracerReport, build_hybrid, propose_hybrid

    report = LayerTracerReport.load("my-report")  # diagnosed with perturbation="mixer"
    build_hybrid(propose_hybrid(report, n_mixers=6), "my-hybrid")
    ```
    """
    if other is None and n_mixers is not None:
        return _replace_mixers(_Model.of(report, base), n_mixers, by)
    if other is not None and n_mixers is None:
        return _mix_donors(_Model.of(report, base), _Model.of(other, other_base))
    raise LayerTracerError("Pass n_mixers to replace mixers of one model, or a second report to mix donors.")


@dataclass(frozen=True)
class _Model:
    """A measured model.

    Args:
        report ([`ReportData`]): Its report.
        diagnosis ([`Diagnosis`]): What was measured of this very model.
        place (`str`): Where it is, as a recipe names it.
    """

    report: ReportData
    diagnosis: Diagnosis
    place: str

    @classmethod
    def of(cls, report: ReportData, place: str | None) -> _Model:
        """The model at a place, by default at the one that the report names."""
        first, latest = report.first, report.latest
        if first is None or latest is None:
            raise LayerTracerError(
                f"The report of {report.model.name} holds no measurement: diagnose the model first."
            )
        named = report.model.id
        if named is None and not place:
            raise LayerTracerError("The report does not name its model: pass base.")
        pinned = f"{named}@{report.model.revision}" if report.model.revision else named
        # What the report names is the model as it was loaded; training leaves its result elsewhere.
        diagnosis = first if not place or place in (named, pinned) else latest
        return cls(report, diagnosis, place or str(pinned))

    @property
    def moment(self) -> str:
        """A sentence on which of several diagnoses this is; empty where there is one."""
        if not self.report.is_repeated:
            return ""
        when = "before training" if self.diagnosis is self.report.first else f"after step {self.diagnosis.step}"
        return f" The values of {self.place} were measured {when}."

    @property
    def rank(self) -> tuple[float, float]:
        """How well it answers: accuracy, and of equals the mean log-probability of the targets."""
        return self.diagnosis.scores.accuracy, self.diagnosis.scores.mean_log_probability


def _replace_mixers(model: _Model, count: int, by: str) -> HybridRecipe:
    report, measured = model.report, model.diagnosis.sensitivities
    layers = report.num_layers
    if not 1 <= count < layers:
        raise LayerTracerError(
            f"n_mixers must lie between 1 and {layers - 1}, as one layer keeps its attention, not be {count}."
        )
    if by not in measured:
        raise LayerTracerError(
            f"The report has no sensitivity to {by!r}, only to {', '.join(measured)}. Diagnose with perturbation={by!r}."
        )
    mapping = next((known for known in MAPPINGS if report.model.model_type in known.donors), None)
    if mapping is None:
        possible = ", ".join(name for known in MAPPINGS for name in known.donors)
        raise LayerTracerError(
            f"No class of transformers holds {report.model.model_type} with other mixers. Possible: {possible}."
        )
    mean = measured[by].mean
    order = sorted(range(layers), key=lambda layer: (mean[layer], layer))
    chosen = sorted(order[:count])
    reason = (
        f"The token mixers of layers {compact_ranges(chosen)} move the output least: {with_error(mean[order[0]])} to "
        f"{with_error(mean[order[count - 1]])} bits ({by} sensitivity over {report.probes.count} probes). "
        f"{_margin(measured[by], order[count - 1], order[count])}{model.moment}"
    )
    replaced = MixerReplacement(layers=tuple(chosen), kind=next(iter(mapping.mixers)))
    return HybridRecipe(base=model.place, mixers=(replaced,), reason=reason)


def _margin(measured: Sensitivity, last: int, following: int) -> str:
    """How far the first layer that stays is from the last one that goes."""
    gap = measured.difference([following], [last])
    next_one = f"Layer {following} comes next with {with_error(measured.mean[following])}; "
    if gap.stderr is None:
        return f"{next_one}the standard error of the difference from layer {last} is not known."
    word = "beyond" if gap.beyond_error else "within"
    return (
        f"{next_one}the difference from layer {last} lies {word} two standard errors ({with_error(2 * gap.stderr)})."
    )


def _mix_donors(first: _Model, second: _Model) -> HybridRecipe:
    reports = (first.report, second.report)
    if (
        reports[0].num_layers != reports[1].num_layers
        or reports[0].model.architecture != reports[1].model.architecture
    ):
        raise LayerTracerError("The two models must be of one class and depth to share their layers.")
    if reports[0].probes.sha256 != reports[1].probes.sha256:
        raise LayerTracerError("The two reports asked different probes; diagnose both with the same.")
    better, worse = (first, second) if first.rank >= second.rank else (second, first)
    particle = better.diagnosis.task_particle.layer
    if particle is None:
        raise LayerTracerError(f"The Task Particle of {better.place} is unresolved: no layer to hand over at.")
    depth, start = better.report.num_layers, math.ceil(particle)
    if not 0 < start < depth:
        raise LayerTracerError(
            f"The Task Particle of {better.place} is layer {particle:g} of {depth}: one model would give all layers."
        )
    reason = (
        f"{_comparison(better, worse)}. It begins to execute the task at layer {particle:g}: it gives layers "
        f"{start}-{depth - 1}, norm and head. {worse.place} gives the embeddings and the layers below."
        f"{first.moment}{second.moment}"
    )
    return HybridRecipe.from_dict(
        {
            "base": worse.place,
            "layers": [
                {"from": worse.place, "layer_range": [0, start]},
                {"from": better.place, "layer_range": [start, depth]},
            ],
            "norm": better.place,
            "head": better.place,
            "reason": reason,
        }
    )


def _comparison(better: _Model, worse: _Model) -> str:
    """In what one model is better than the other."""
    count, (accuracy, likelihood), (least, lower) = better.report.probes.count, better.rank, worse.rank
    if accuracy > least:
        return f"{better.place} answers more of the {count} probes ({accuracy:.1%} against {least:.1%})"
    alike = f"Both models answer {accuracy:.1%} of the {count} probes"
    if likelihood > lower:
        return (
            f"{alike}, and {better.place} gives the targets a higher mean log-probability ({likelihood:.4f} against "
            f"{lower:.4f})"
        )
    return (
        f"{alike} with one mean log-probability ({likelihood:.4f}), so {better.place}, which was named first, is taken"
    )
