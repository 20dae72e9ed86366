"""The model card of a repository with a report: its section, its tags and its evaluation results."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.repocard_data import eval_results_to_model_index

from ..records import ReportData
from ..report.card_section import put_section, without_section
from ..report.markdown import report_section
from ..report.templates import card_template
from . import model_index
from .front_matter import read_front_matter, with_front_matter


TAG = "layertracer"
_TASK = ("text-generation", "Text Generation")
_PROBES = "layertracer-probes"
_EVALUATION = "layertracer-evaluation"


def model_card(
    text: str | None,
    report: ReportData,
    repo_id: str,
    license_of: Callable[[str], dict[str, str]] = lambda model_id: {},
) -> str:
    """Writes what a report says into a model card.

    Args:
        text (`str`, *optional*): The card as it is; a new one is made where there is none.
        report ([`ReportData`]): The report; its picture is expected beside the card.
        repo_id (`str`): The repository, or the name of the model alone.
        license_of (`Callable`, *optional*):
            Gives the fields of a new card that name a model's licence, such as [`license_fields`] from the Hub.

    Returns:
        `str`: The card with the report's section, the tag `layertracer` and the evaluation results. All else keeps its
        bytes.

    Raises:
        LayerTracerError: The card's front matter cannot be read.
    """
    name = repo_id.rsplit("/", 1)[-1]
    text = text or ""
    before = read_front_matter(ModelCard, text)
    theirs = without_section(text)
    left_by_report = theirs != text and before == {"tags": [TAG]} and not REGEX_YAML_BLOCK.sub("", theirs).strip()
    if not theirs.strip() or left_by_report:
        return _new_card(report, repo_id, name, license_of)
    index, ours = before.get(model_index.FIELD) or [], (_PROBES, _EVALUATION)
    results = _as_written(evaluation_results(report), name)
    wanted = {
        "tags": with_tag(before.get("tags")),
        model_index.FIELD: model_index.merged(index, name, results, ours) or None,
    }
    edits = {model_index.FIELD: lambda block: model_index.edit(block, index, name, results, ours)}
    return put_section(with_front_matter(text, wanted, edits), report_section(report))


def evaluation_results(report: ReportData) -> list[EvalResult]:
    """What was measured of the model that a report is published with, as the Hub's `model-index` takes it.

    Of a model that was trained after its diagnosis, that is the last diagnosis after training, if there is one, and its
    last evaluation loss: of the best checkpoint where that was put back at the end.

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


def license_fields(api: HfApi, model_id: str) -> dict[str, str]:
    """The licence of a model on the Hub, as its card names it.

    Args:
        api (`HfApi`): The client.
        model_id (`str`): The model.

    Returns:
        `dict[str, str]`: `license`, and `license_name` and `license_link` of one that is not on the Hub's list; nothing
        where the model is not there or names none.
    """
    try:
        card = api.model_info(model_id).card_data
    except (HfHubHTTPError, HFValidationError):
        return {}
    fields = {name: card.get(name) if card else None for name in ("license", "license_name", "license_link")}
    return {name: value for name, value in fields.items() if isinstance(value, str)}


def with_tag(tags: list[str] | str | None) -> list[str] | str:
    """Tags of a card with `layertracer` among them; as they were where it is."""
    if tags == TAG or (isinstance(tags, list) and TAG in tags):
        return tags
    return [*([tags] if isinstance(tags, str) else tags or []), TAG]


def _new_card(report: ReportData, repo_id: str, name: str, license_of: Callable[[str], dict[str, str]]) -> str:
    results = evaluation_results(report)
    base = report.model.id if "/" in (report.model.id or "") and report.model.id != repo_id else None
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag=_TASK[0],
        tags=[TAG],
        base_model=base,
        model_name=name if results else None,
        eval_results=results or None,
        **(license_of(base) if base else {}),
    )
    # A report without a training run is about the model that it names.
    loaded = repo_id if report.training is not None or base is None else base
    card = ModelCard.from_template(
        data, template_str=card_template("model_card.md"), title=name, repo_id=repo_id, loaded=loaded
    )
    return put_section(f"{card}\n", report_section(report))


def _as_written(results: list[EvalResult], name: str) -> list[dict[str, Any]]:
    """Results as they stand in a card."""
    return eval_results_to_model_index(name, results)[0]["results"] if results else []


def _result(dataset: dict[str, str], metric: str, name: str, value: float | None) -> EvalResult | None:
    if value is None or not math.isfinite(value):
        return None
    task, task_name = _TASK
    return EvalResult(
        task_type=task, task_name=task_name, metric_type=metric, metric_name=name, metric_value=value, **dataset
    )
