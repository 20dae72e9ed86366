"""Pushes a report to the Hub: one commit, or none."""

from __future__ import annotations

from functools import partial
from itertools import count
from pathlib import Path

from huggingface_hub import CommitInfo, HfApi
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

from ..errors import LayerTracerError
from ..report import CARD_FILE, LayerTracerReport
from ..text import one_line
from .card import license_fields, model_card
from .collection import collected_files, dataset_card
from .destination import destination
from .model_files import model_files
from .privacy import public_report


_ATTEMPTS = 5


def push_report(
    report: LayerTracerReport,
    repo_id: str,
    *,
    repo_type: str = "model",
    model_dir: str | Path | None = None,
    commit_message: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    private: bool | None = None,
    token: str | None = None,
) -> CommitInfo:
    """Pushes a report with its picture and a card, in one commit.

    Into a model repository it goes beside the weights, and of an existing card only the report's section, the tag
    `layertracer` and the report's own evaluation results change. A dataset repository collects reports: each push adds
    one, with a row for each layer. The same call again changes nothing, so it finishes a push that broke.

    Args:
        report ([`LayerTracerReport`]): The report. Of paths in it, only the last part is published.
        repo_id (`str`): The repository, made where it does not exist.
        repo_type (`str`, *optional*, defaults to `"model"`): `"model"` or `"dataset"`.
        model_dir (`str` or `Path`, *optional*):
            Folder of a model whose files ([`model_files`]) and card go into the same commit.
        commit_message (`str`, *optional*): The commit's first line.
        revision (`str`, *optional*): Branch to push to, made where it does not exist; `main` by default.
        create_pr (`bool`, *optional*, defaults to `False`):
            Open a pull request instead, or add to your open one of the same title.
        private (`bool`, *optional*):
            Make a new repository private; your account's default otherwise. An existing public one is refused.
        token (`str`, *optional*): The one that you are logged in with by default.

    Returns:
        `CommitInfo`: The commit, with the pull request's address if one was opened.

    Raises:
        HubError: The Hub or the way to it failed; call it again.
        LayerTracerError: The repository is of another type, its card cannot be read or there is no model to push.

    Example:

    ```python
    from hf_layertracer import LayerTracerReport, push_report

    push_report(LayerTracerReport.load("my-report"), "alice/model")
    ```
    """
    if repo_type not in ("model", "dataset"):
        raise LayerTracerError(f"repo_type must be model or dataset, not {repo_type!r}.")
    if model_dir is not None and repo_type != "model":
        raise LayerTracerError("A model goes into a model repository: model_dir needs repo_type='model'.")
    subject = one_line(report.model.name, 80)
    weights = {} if model_dir is None else model_files(Path(model_dir))
    message = commit_message or f"Add LayerTracer report of {subject}"
    with destination(
        repo_id, repo_type, message, revision=revision, create_pr=create_pr, private=private, token=token
    ) as place:
        files = report_files(report, repo_type)
        for attempt in count(1):
            # Others may push between reading the card and writing it: then the Hub refuses, and it is read again.
            there = place.api.repo_info(place.repo_id, repo_type=repo_type, revision=place.revision)
            card = _card(place.api, place.repo_id, repo_type, there.sha)
            if repo_type == "dataset":
                text = dataset_card(card, place.repo_id, [file.rfilename for file in there.siblings])
            else:
                public, licence = public_report(report), partial(license_fields, place.api)
                text = model_card(_local_card(model_dir) or card, public, place.repo_id, licence)
            try:
                return place.commit({**weights, **files, CARD_FILE: text.encode()}, parent=there.sha)
            except HfHubHTTPError as error:
                if error.response.status_code != 412 or attempt == _ATTEMPTS:
                    raise


def report_files(report: LayerTracerReport, repo_type: str) -> dict[str, bytes]:
    """The files of a report as they are published, the card apart.

    Args:
        report ([`LayerTracerReport`]): The report. Of paths in it, only the last part is left.
        repo_type (`str`): `"model"` or `"dataset"`.

    Returns:
        `dict[str, bytes]`: Contents by path in the repository.
    """
    public = public_report(report)
    return collected_files(public) if repo_type == "dataset" else public.files()


def _card(api: HfApi, repo_id: str, repo_type: str, revision: str) -> str | None:
    try:
        path = api.hf_hub_download(repo_id, CARD_FILE, repo_type=repo_type, revision=revision)
    except EntryNotFoundError:
        return None
    return Path(path).read_bytes().decode()


def _local_card(model_dir: str | Path | None) -> str | None:
    card = Path(model_dir) / CARD_FILE if model_dir is not None else None
    return card.read_bytes().decode() if card is not None and card.is_file() else None
