"""A dataset repository that collects reports: one row per layer, each report in its own file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from ..errors import LayerTracerError
from ..report import LayerTracerReport
from ..report.templates import card_template
from .card import TAG, with_tag
from .front_matter import read_front_matter, with_front_matter
from .transport import REPORTS_FOLDER


_ROWS_FOLDER = "layers"
_OUR_FOLDERS = (f"{_ROWS_FOLDER}/", f"{REPORTS_FOLDER}/")
_DATA = (".csv", ".json", ".jsonl", ".parquet", ".arrow", ".txt", ".zip", ".tar", ".gz")
_DATA_FILES = [{"split": "train", "path": f"{_ROWS_FOLDER}/*.jsonl"}]
# Types and meanings of a row's values. Files with nothing but nulls in a column need the types.
COLUMNS: dict[str, tuple[str, str]] = {
    "report": ("string", "folder of the report in `reports/`"),
    "model": ("string", "Hub id, or the name of a local folder"),
    "revision": ("string", "commit of the model"),
    "architecture": ("string", "class of the model"),
    "created": ("timestamp[s]", "UTC time of the diagnosis"),
    "layers": ("int64", "number of decoder layers"),
    "step": ("int64", "optimizer step of the diagnosis, the report's latest; 0 before training"),
    "layer": ("int64", "this layer, counted from 0"),
    "kind": ("string", "kind of the layer"),
    "parameters": ("int64", "parameters of the layer"),
    "lens_probability": ("float64", "mean probability of the targets if the model stopped after this layer"),
    "lens_probability_stderr": ("float64", "its standard error; null where it is not known"),
    "task_particle": ("float64", "Task Particle of the report: median layer"),
    "layer_sensitivity": ("float64", "Jensen-Shannon divergence in bits when this layer is perturbed"),
    "layer_sensitivity_stderr": ("float64", "its standard error; null where it is not known"),
    "block_influence": ("float64", "1 - cosine similarity of the layer's input and output"),
    "trained": ("bool", "whether the plan trains this layer"),
    "strategy": ("string", "strategy of the plan"),
    "perturbation": ("string", "what was done to a layer: mask, skip or noise"),
    "mask_ratio": ("float64", "fraction of the hidden dimensions that a mask zeroes"),
    "noise_scale": ("float64", "noise in units of the hidden state's own deviation"),
    "seed": ("int64", "seed of the perturbations"),
    "draws": ("int64", "perturbations of each layer"),
    "probes": ("int64", "number of probes"),
    "probes_sha256": ("string", "hash of the probes"),
    "accuracy": ("float64", "fraction of probes whose target is the likeliest next token"),
    "eval_loss_before": ("float64", "evaluation loss before the first step; null where none was measured then"),
    "eval_loss_after": (
        "float64",
        "last evaluation loss of the model that training left, the best checkpoint's where that was put back",
    ),
}


def collected_files(report: LayerTracerReport) -> dict[str, bytes]:
    """The files that a report adds to a dataset repository; the same report always adds the same ones.

    Args:
        report ([`LayerTracerReport`]): The report.

    Returns:
        `dict[str, bytes]`: Contents by path.
    """
    name = report_name(report)
    rows = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in layer_rows(report))
    files = {f"{REPORTS_FOLDER}/{name}/{file}": content for file, content in report.files().items()}
    return {f"{_ROWS_FOLDER}/{name}.jsonl": rows.encode(), **files}


def report_name(report: LayerTracerReport) -> str:
    """A name that no other report has: model, time and a hash of the content."""
    model = re.sub(r"[^A-Za-z0-9_.-]+", "--", report.model.name).strip("-.") or "model"
    created = _created(report) or datetime.fromtimestamp(0, UTC)
    return f"{model[:80]}-{created:%Y%m%dT%H%M%SZ}-{hashlib.sha256(report.to_json()).hexdigest()[:8]}"


def layer_rows(report: LayerTracerReport) -> list[dict[str, Any]]:
    """A report as a table.

    Args:
        report ([`LayerTracerReport`]): The report.

    Returns:
        `list[dict[str, Any]]`: One row per layer, with the keys of `COLUMNS`.

    Raises:
        LayerTracerError: The report holds no measurements.
    """
    if not report.is_measured:
        raise LayerTracerError("The report holds a plan but no measurements: a collection has no place for it.")
    model, latest, plan, settings = report.model, report.latest, report.plan, report.settings
    created = _created(report)
    same = {
        "report": report_name(report),
        "model": model.id,
        "revision": model.revision,
        "architecture": model.architecture,
        "created": f"{created:%Y-%m-%dT%H:%M:%S}" if created else None,
        "layers": report.num_layers,
        "step": latest.step,
        "task_particle": latest.task_particle.layer,
        "strategy": plan.strategy if plan else None,
        "perturbation": latest.perturbation,
        "mask_ratio": settings.mask_ratio,
        "noise_scale": settings.noise_scale,
        "seed": settings.diagnosis_seed,
        "draws": latest.sensitivity.draws,
        "probes": report.probes.count,
        "probes_sha256": report.probes.sha256,
        "accuracy": latest.scores.accuracy,
        "eval_loss_before": report.training.eval_loss_before if report.training else None,
        "eval_loss_after": report.training.eval_loss_after if report.training else None,
    }
    rows = [{**same, **row} for row in report.layer_rows()]
    return [{name: row[name] for name in COLUMNS} for row in rows]


def dataset_card(text: str | None, repo_id: str, files: Iterable[str]) -> str:
    """Sees to it that a dataset card makes the rows loadable and the repository findable.

    Args:
        text (`str`, *optional*): The card as it is; a new one is made where there is none.
        repo_id (`str`): The dataset repository.
        files (`Iterable[str]`): What lies in it.

    Returns:
        `str`: The card. The text of an existing one stays as it is.

    Raises:
        LayerTracerError: The card's front matter cannot be read, or the repository holds other data.
    """
    other = [file for file in files if file.endswith(_DATA) and not file.startswith(_OUR_FOLDERS)]
    if other:
        # One set of files is all that a reader gets by default: rows beside it would hide it, or be hidden.
        raise LayerTracerError(f"{repo_id!r} holds other data ({other[0]}). Collect reports in a separate repository.")
    features = [{"name": name, "dtype": dtype} for name, (dtype, _) in COLUMNS.items()]
    ours = {
        "configs": [{"config_name": "default", "data_files": _DATA_FILES}],
        "dataset_info": {"config_name": "default", "features": features},
    }
    if text is None or not text.strip():
        meanings = {name: meaning for name, (_, meaning) in COLUMNS.items()}
        return str(
            DatasetCard.from_template(
                DatasetCardData(tags=[TAG], **ours),
                template_str=card_template("dataset_card.md"),
                repo_id=repo_id,
                columns=meanings,
            )
        )
    tags = read_front_matter(DatasetCard, text).get("tags")
    return with_front_matter(text, {"tags": with_tag(tags), **ours})


def _created(report: LayerTracerReport) -> datetime | None:
    try:
        return datetime.fromisoformat(report.created).astimezone(UTC)
    except ValueError:
        return None
