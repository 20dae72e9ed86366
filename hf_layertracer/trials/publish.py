"""A trial on the Hub: a dataset with one row for each run and metric, the results and the pictures."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from ..hub.card import TAG
from ..hub.destination import destination
from ..hub.privacy import public_value
from ..modeling.facts import public_model_id
from ..report.templates import card_template
from .figures import LOSSES_FILE, TRADE_OFF_FILE, draw_losses, draw_trade_off, png
from .results import RESULTS_FILE, TABLE_FILE, TrialsResult
from .summary import Summary


_CARD = "trials_card.md"
_ROWS = "data/rows.jsonl"
# Types and meanings of a row's values. A file with nothing but nulls in a column needs the types.
COLUMNS: dict[str, tuple[str, str]] = {
    "model": ("string", "Hub id, or the name of a local folder"),
    "arm": ("string", "name of the arm; `base` is the untouched model"),
    "strategy": ("string", "strategy of the arm"),
    "options": ("string", "its options, as JSON"),
    "learning_rate": ("float64", "its peak learning rate"),
    "seed": ("int64", "seed of the run"),
    "metric": ("string", "what was measured"),
    "value": ("float64", "its value"),
    "n": ("int64", "how many items it is a mean over"),
    "chance": ("float64", "what guessing gives, where that is known"),
    "at_chance": ("bool", "whether the untouched model cannot be told from guessing"),
    "tokens": ("int64", "tokens trained on"),
    "tokens_per_second": ("float64", "speed of training"),
    "peak_memory_bytes": ("int64", "peak memory of training"),
    "trainable_parameters": ("int64", "parameters that train"),
    "optimizer_bytes": ("int64", "memory of the optimizer's state"),
    "flops": ("float64", "of the whole training, by arithmetic"),
    "fingerprint": ("string", "hash of settings, data, model and package versions"),
}


def push_trials(result: TrialsResult, repo_id: str, *, private: bool | None = None, token: str | None = None) -> str:
    """Pushes the results of a trial to a dataset, in one commit. Texts, items and paths stay where they are.

    Args:
        result ([`TrialsResult`]): The trial.
        repo_id (`str`): The dataset, made where it does not exist.
        private (`bool`, *optional*): Make a new dataset private; your account's default otherwise.
        token (`str`, *optional*): The one that you are logged in with by default.

    Returns:
        `str`: Address of the commit.

    Raises:
        HubError: The Hub or the way to it failed; call it again.
    """
    result = _public(result)
    message = "Add results of LayerTracer trials"
    files = trial_files(result)
    with destination(repo_id, "dataset", message, private=private, token=token) as place:
        return place.commit(files | {"README.md": _card(result, place.repo_id, files).encode()}).commit_url


def trial_files(result: TrialsResult) -> dict[str, bytes]:
    """The files of a dataset that holds a trial; the same trial always gives the same ones.

    Args:
        result ([`TrialsResult`]): The trial.

    Returns:
        `dict[str, bytes]`: Contents by path.
    """
    rows = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in metric_rows(result))
    files = {_ROWS: rows.encode()}
    figures = {TRADE_OFF_FILE: draw_trade_off(result), LOSSES_FILE: draw_losses(result)}
    files |= {name: png(figure) for name, figure in figures.items() if figure is not None}
    files[TABLE_FILE] = result.to_markdown(pictures=files).encode()
    files[RESULTS_FILE] = (json.dumps(result.to_dict(), indent=1, ensure_ascii=False) + "\n").encode()
    return files


def metric_rows(result: TrialsResult) -> list[dict[str, Any]]:
    """A trial as a table: one row for each run and metric, with the keys of `COLUMNS`."""
    summary = Summary(result)
    model = public_model_id(result.config["model"])
    table = []
    for run, row in zip(result.units, result.rows, strict=True):
        same = {"model": model, **row, **row["cost"], "options": json.dumps(row["options"] or {}, ensure_ascii=False)}
        for metric, value in row["metrics"].items():
            own = {
                "metric": metric,
                "value": value,
                "n": run["evaluation"]["n"].get(metric),
                "chance": run["evaluation"]["chance"].get(metric),
                "at_chance": summary.at_chance(metric),
            }
            values = {**same, **own}
            table.append({name: values[name] for name in COLUMNS})
    return table


def _card(result: TrialsResult, repo_id: str, pictures: Collection[str]) -> str:
    features = [{"name": name, "dtype": dtype} for name, (dtype, _) in COLUMNS.items()]
    data = DatasetCardData(
        tags=[TAG, "layertracer-trials"],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": _ROWS}]}],
        dataset_info={"config_name": "default", "features": features},
    )
    return str(
        DatasetCard.from_template(
            data,
            template_str=card_template(_CARD),
            repo_id=repo_id,
            columns={name: meaning for name, (_, meaning) in COLUMNS.items()},
            results=result.to_markdown(pictures=pictures).partition("\n")[2].lstrip("\n"),
        )
    )


def _public(result: TrialsResult) -> TrialsResult:
    """Of local paths, only the last part leaves the machine."""
    public = result.model_copy(deep=True)
    config = public.config
    config["model"] = public_model_id(config["model"])
    for section, names in (("train", ["files"]), ("evaluate", ["new", "old", "tasks"])):
        for name in names:
            config[section][name] = [_last_part(path) for path in config[section][name]]
    if config["evaluate"]["probes"] is not None:
        config["evaluate"]["probes"] = _last_part(config["evaluate"]["probes"])
    for arm in [*config["arms"], *(entry["arm"] for entry in public.arms)]:
        arm["files"] = arm.get("files") and [_last_part(path) for path in arm["files"]]
    public.config, public.arms = public_value(config), public_value(public.arms)
    public.notes, public.failures = public_value(public.notes), public_value(public.failures)
    for unit in public.units:
        unit["options"] = public_value(unit["options"])
        for said in ("protocols", "notes"):
            unit["evaluation"][said] = public_value(unit["evaluation"][said])
    return public


def _last_part(path: str) -> str:
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]
