"""Finds reports on the Hub and sets them side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

from huggingface_hub import HfApi

from ..errors import HubError, LayerTracerError
from ..logs import get_logger
from ..report import REPORT_FILE, LayerTracerReport
from .card import TAG
from .transport import hub_errors, is_unreachable, report_folders


logger = get_logger(__name__)

_CONNECTIONS = 8


@dataclass(frozen=True)
class HubReport:
    """A report and where it is.

    Args:
        repo_id (`str`): The repository.
        repo_type (`str`): `"model"` or `"dataset"`.
        revision (`str`): The commit.
        date (`str`): UTC time of the commit, of the last one where a repository holds several reports.
        subfolder (`str`, *optional*): Folder in the repository.
        report ([`LayerTracerReport`]): The report.
    """

    repo_id: str
    repo_type: str
    revision: str
    date: str
    subfolder: str | None
    report: LayerTracerReport


def list_reports(
    repo_id: str | None = None,
    *,
    repo_type: str | None = None,
    revision: str | None = None,
    author: str | None = None,
    search: str | None = None,
    limit: int | None = None,
    token: str | None = None,
) -> list[HubReport]:
    """Lists reports: of one model over time, of a dataset that collects them, or of all models with a report.

    Args:
        repo_id (`str`, *optional*):
            A model repository: the report at each commit that changed it. A dataset repository: its reports. All models
            that carry the tag `layertracer` by default.
        repo_type (`str`, *optional*):
            Whether `repo_id` is a `"model"` or a `"dataset"`; by default the model of this name, else the dataset.
        revision (`str`, *optional*): Branch, tag or commit of the repository up to which is looked.
        author (`str`, *optional*): Among all models, those of this user or organization.
        search (`str`, *optional*): Among all models, those with this in their name.
        limit (`int`, *optional*): At most this many, the newest.
        token (`str`, *optional*): The one that you are logged in with by default.

    Returns:
        `list[HubReport]`: Of one repository the oldest first, of all models the last changed first.

    Raises:
        HubError: The Hub or the way to it failed, or there is no such repository.
        LayerTracerError: The arguments do not go together.

    Example:

    ```python
    from hf_layertracer import list_reports

    for found in list_reports("alice/model"):  # without a name: all models with the tag layertracer
        print(found.repo_id, found.report.latest.step)
    ```
    """
    if repo_type not in (None, "model", "dataset"):
        raise LayerTracerError(f"repo_type must be model or dataset, not {repo_type!r}.")
    if repo_id is None and (repo_type == "dataset" or revision is not None):
        raise LayerTracerError("repo_type='dataset' and revision need a repo_id.")
    if repo_id is not None and (author is not None or search is not None):
        raise LayerTracerError("author and search are for listing all models, without a repo_id.")
    api = HfApi(token=token)
    places: list[tuple[Any, ...]]
    with hub_errors(repo_id or "the list of models", token):
        if repo_id is not None and repo_type is None:
            is_dataset = not api.repo_exists(repo_id) and api.repo_exists(repo_id, repo_type="dataset")
            repo_type = "dataset" if is_dataset else "model"
        if repo_id is None:
            models = api.list_models(filter=TAG, author=author, search=search, sort="last_modified", full=True)
            places = [(m.id, "model", m.sha, m.last_modified, None) for m in islice(models, limit)]
        elif repo_type == "dataset":
            info = api.dataset_info(repo_id, revision=revision)
            folders = report_folders(api, repo_id, REPORT_FILE, info.sha)
            places = [(repo_id, "dataset", info.sha, info.last_modified, folder) for folder in folders]
            places = places[-limit:] if limit else places
        else:
            places = _changes(api, repo_id, revision, limit)
    return [found for found in _in_parallel(lambda place: _load(place, token), places) if found is not None]


def compare_reports(reports: Iterable[HubReport | LayerTracerReport]) -> list[dict[str, Any]]:
    """Sets reports side by side: one flat row each, for `pandas.DataFrame` or a table.

    Args:
        reports (`Iterable`): Reports, or what [`list_reports`] returns.

    Returns:
        `list[dict[str, Any]]`: In the order given, with the values of each report's latest diagnosis. Positions along
        the depth are fractions too (`*_depth`, 0 the embedding and 1 the last layer), so that models of different depth
        compare; `probes_sha256` tells whether probes do.

    Example:

    ```python
    import pandas

    from hf_layertracer import compare_reports, list_reports

    print(pandas.DataFrame(compare_reports(list_reports("alice/model"))))
    ```
    """
    return [_row(entry) for entry in reports]


def _row(entry: HubReport | LayerTracerReport) -> dict[str, Any]:
    place, report = (entry, entry.report) if isinstance(entry, HubReport) else (None, entry)
    measured, plan, training = report.headline(), report.plan, report.training
    return {
        "repo_id": place and place.repo_id,
        "revision": place and place.revision,
        "subfolder": place and place.subfolder,
        "date": place.date if place else report.created,
        "model": report.model.name,
        "layers": report.num_layers,
        "step": report.latest and report.latest.step,
        **report.placed_headline(),
        "accuracy": measured["accuracy"],
        "choice_accuracy": report.latest and report.latest.scores.choice_accuracy,
        "mean_log_probability": measured["mean_log_probability"],
        "strategy": plan and plan.strategy,
        "trained_layers": plan and list(plan.trained_layers),
        "eval_loss_before": training and training.eval_loss_before,
        "eval_loss_after": training and training.eval_loss_after,
        "probes_sha256": report.probes.sha256,
    }


def _changes(api: HfApi, repo_id: str, revision: str | None, limit: int | None) -> list[tuple]:
    """The commits at which a model's report became another one, oldest first."""
    commits = api.list_repo_commits(repo_id, revision=revision)[::-1]

    def blob(commit: Any) -> str | None:
        found = api.get_paths_info(repo_id, REPORT_FILE, revision=commit.commit_id)
        return found[0].blob_id if found else None

    blobs = _in_parallel(blob, commits)
    before = [None, *blobs]
    places = [
        (repo_id, "model", commit.commit_id, commit.created_at, None)
        for commit, now, earlier in zip(commits, blobs, before, strict=False)
        if now is not None and now != earlier
    ]
    return places[-limit:] if limit else places


def _load(place: tuple, token: str | None) -> HubReport | None:
    repo_id, repo_type, revision, date, subfolder = place
    try:
        report = LayerTracerReport.load(
            repo_id, repo_type=repo_type, revision=revision, subfolder=subfolder, token=token
        )
    except LayerTracerError as error:
        if is_unreachable(error.__cause__):
            raise HubError(str(error)) from error
        # A broken report, or a model with the tag alone, must not hide all others.
        logger.warning(f"Left out: {error}")
        return None
    return HubReport(repo_id, repo_type, revision, date.isoformat(timespec="seconds"), subfolder, report)


def _in_parallel(function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        return list(pool.map(function, items))
