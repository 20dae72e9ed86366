"""The model card of a repository with a report: its section, its tags and its evaluation results."""

from __future__ import annotations

import math
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..records import ReportData
from ..report.card_section import put_section, without_section
from ..report.markdown import report_section
from ..report.templates import card_template
from .front_matter import read_front_matter, unreadable, with_front_matter


TAG = "layertracer"
_TASK = ("text-generation", "Text Generation")
_PROBES = "layertracer-probes"
_EVALUATION = "layertracer-evaluation"


def model_card(text: str | None, report: ReportData, repo_id: str) -> str:
    """Writes what a report says into a model card.

    Args:
        text (`str`, *optional*): The card as it is; a new one is made where there is none.
        report ([`ReportData`]): The report; its picture is expected beside the card.
        repo_id (`str`): The repository, or the name of the model alone.

    Returns:
        `str`: The card with the report's section, the tag `layertracer` and the evaluation results. All else is as it
        was.

    Raises:
        LayerTracerError: The card's front matter cannot be read.
    """
    name = repo_id.rsplit("/", 1)[-1]
    text = text or ""
    if not without_section(text).strip():
        return _new_card(report, repo_id, name)
    try:
        data = read_front_matter(ModelCard, text).data
        ours = {_PROBES, _EVALUATION}
        theirs = [result for result in data.eval_results or [] if result.dataset_type not in ours]
        results = theirs + evaluation_results(report)
        wanted: dict[str, Any] = {"tags": with_tag(data.tags)}
        if results or data.eval_results:
            wanted |= {"eval_results": results, "model_name": data.model_name or name}
    except (ValueError, TypeError, KeyError) as error:
        raise unreadable(error) from error
    return put_section(with_front_matter(text, ModelCard, wanted), report_section(report))


def evaluation_results(report: ReportData) -> list[EvalResult]:
    """What was measured of the model that a report is published with, as the Hub's `model-index` takes it.

    Of a model that was trained after its diagnosis, that is the last diagnosis after training, if there is one, and the
    last evaluation loss.

    Args:
        report ([`ReportData`]): The report.

    Returns:
        `list[EvalResult]`: One for each metric.
    """
    results = []
    probes, training, measured = report.probes, report.training, report.headline()
    probe_set = {
        "dataset_type": _PROBES,
        "dataset_name": f"LayerTracer probes ({probes.count})",
        "dataset_revision": probes.sha256,
    }
    if report.is_measured and (report.is_repeated or training is None):
        metrics = [
            ("accuracy", "Accuracy on the probes", measured["accuracy"]),
            ("mean_log_probability", "Mean log-probability of the targets", measured["mean_log_probability"]),
            ("task_particle", "Task Particle (layer, from 0)", measured["task_particle"]),
            ("vulnerable_layer", "Vulnerable layer (from 0)", measured["vulnerable_layer"]),
            ("layer_sensitivity", "Highest Layer Sensitivity (bits)", measured["highest_sensitivity"]),
        ]
        results += [_result(probe_set, *metric) for metric in metrics]
    if training is not None and training.eval_loss_after is not None:
        held_out = {"dataset_type": _EVALUATION, "dataset_name": "Evaluation set of the training run"}
        results.append(_result(held_out, "loss", "Evaluation loss", training.eval_loss_after))
    return [result for result in results if result is not None]


def with_tag(tags: list[str] | str | None) -> list[str]:
    """Tags of a card with `layertracer` among them."""
    tags = [tags] if isinstance(tags, str) else list(tags or [])
    return tags if TAG in tags else [*tags, TAG]


def _new_card(report: ReportData, repo_id: str, name: str) -> str:
    results = evaluation_results(report)
    base = report.model.id if report.training is not None and "/" in (report.model.id or "") else None
    data = ModelCardData(
        tags=[TAG],
        base_model=base if base != repo_id else None,
        model_name=name if results else None,
        eval_results=results or None,
    )
    card = ModelCard.from_template(data, template_str=card_template("model_card.md"), title=name, repo_id=repo_id)
    return put_section(f"{card}\n", report_section(report))


def _result(dataset: dict[str, str], metric: str, name: str, value: float | None) -> EvalResult | None:
    if value is None or not math.isfinite(value):
        return None
    task, task_name = _TASK
    return EvalResult(
        task_type=task, task_name=task_name, metric_type=metric, metric_name=name, metric_value=value, **dataset
    )
