"""Recipes from measurements: which mixers can go, and where one donor should hand over to another."""

from __future__ import annotations

import math

from ..errors import LayerTracerError
from ..records import Diagnosis, ReportData
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
        return _replace_mixers(report, n_mixers, by, base or _name(report))
    if other is not None and n_mixers is None:
        return _mix_donors((report, base or _name(report)), (other, other_base or _name(other)))
    raise LayerTracerError("Pass n_mixers to replace mixers of one model, or a second report to mix donors.")


def _replace_mixers(report: ReportData, count: int, by: str, base: str) -> HybridRecipe:
    layers = report.num_layers
    if not 1 <= count < layers:
        raise LayerTracerError(
            f"n_mixers must lie between 1 and {layers - 1}, as one layer keeps its attention, not be {count}."
        )
    measured = _latest(report).sensitivities
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
    mean, stderr = measured[by].mean, measured[by].stderr
    order = sorted(range(layers), key=lambda layer: (mean[layer], layer))
    chosen = sorted(order[:count])
    reason = (
        f"The token mixers of layers {compact_ranges(chosen)} move the output least: {with_error(mean[order[0]])} to "
        f"{with_error(mean[order[count - 1]])} bits ({by} sensitivity over {report.probes.count} probes)."
    )
    if count < layers:
        last, following = order[count - 1], order[count]
        gap, error = mean[following] - mean[last], math.hypot(stderr[last], stderr[following])
        word = "beyond" if gap > 2 * error else "within"
        reason += (
            f" Layer {following} comes next with {with_error(mean[following])}; the difference from layer {last} lies "
            f"{word} two standard errors ({with_error(2 * error)})."
        )
    replaced = MixerReplacement(layers=tuple(chosen), kind=next(iter(mapping.mixers)))
    return HybridRecipe(base=base, mixers=(replaced,), reason=reason)


def _mix_donors(first: tuple[ReportData, str], second: tuple[ReportData, str]) -> HybridRecipe:
    reports = (first[0], second[0])
    if (
        reports[0].num_layers != reports[1].num_layers
        or reports[0].model.architecture != reports[1].model.architecture
    ):
        raise LayerTracerError("The two models must be of one class and depth to share their layers.")
    if reports[0].probes.sha256 != reports[1].probes.sha256:
        raise LayerTracerError("The two reports asked different probes; diagnose both with the same.")
    scores = [_latest(report).headline() for report in reports]
    ranks = [(score["accuracy"], score["mean_log_probability"]) for score in scores]
    better, worse = (first, second) if ranks[0] >= ranks[1] else (second, first)
    particle = _latest(better[0]).task_particle.layer
    if particle is None:
        raise LayerTracerError(f"The Task Particle of {better[1]} is unresolved: no layer to hand over at.")
    depth, start = better[0].num_layers, math.ceil(particle)
    if not 0 < start < depth:
        raise LayerTracerError(
            f"The Task Particle of {better[1]} is layer {particle:g} of {depth}: one model would give all layers."
        )
    answered = [f"{max(ranks)[0]:.1%}", f"{min(ranks)[0]:.1%}"]
    reason = (
        f"{better[1]} answers more of the {better[0].probes.count} probes ({answered[0]} against {answered[1]}) and begins "
        f"to execute the task at layer {particle:g}: it gives layers {start}-{depth - 1}, norm and head. {worse[1]} gives "
        "the embeddings and the layers below."
    )
    return HybridRecipe.from_dict(
        {
            "base": worse[1],
            "layers": [
                {"from": worse[1], "layer_range": [0, start]},
                {"from": better[1], "layer_range": [start, depth]},
            ],
            "norm": better[1],
            "head": better[1],
            "reason": reason,
        }
    )


def _latest(report: ReportData) -> Diagnosis:
    if report.latest is None:
        raise LayerTracerError(f"The report of {report.model.name} holds no measurement: diagnose the model first.")
    return report.latest


def _name(report: ReportData) -> str:
    """Where a report's model is, as a recipe names it."""
    if report.model.id is None:
        raise LayerTracerError("The report does not name its model: pass base.")
    revision = report.model.revision
    return f"{report.model.id}@{revision}" if revision else report.model.id
