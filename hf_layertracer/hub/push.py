"""Pushes a report to the Hub: one commit, or none."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, Discussion, HfApi
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

from .. import __version__
from ..errors import HubError, LayerTracerError
from ..report import CARD_FILE, LayerTracerReport
from ..text import one_line
from .card import license_fields, model_card
from .collection import collected_files, dataset_card
from .model_files import model_files
from .privacy import public_report
from .transport import hub_errors


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
    api = HfApi(token=token, library_name="hf_layertracer", library_version=__version__)
    with hub_errors(repo_id, token, may_open_pr=not create_pr):
        repo_id = repository(api, repo_id, repo_type, private)
        if revision is not None and not revision.startswith("refs/"):
            api.create_branch(repo_id, branch=revision, repo_type=repo_type, exist_ok=True)
        message = commit_message or f"Add LayerTracer report of {subject}"
        pull_request = own_pull_request(api, repo_id, repo_type, message) if create_pr else None
        if pull_request is not None:
            revision = pull_request.git_reference
        files = report_files(report, repo_type)
        for attempt in count(1):
            # Others may push between reading the card and writing it: then the Hub refuses, and it is read again.
            there = api.repo_info(repo_id, repo_type=repo_type, revision=revision)
            card = _card(api, repo_id, repo_type, there.sha)
            if repo_type == "dataset":
                text = dataset_card(card, repo_id, [file.rfilename for file in there.siblings])
            else:
                public = public_report(report)
                text = model_card(_local_card(model_dir) or card, public, repo_id, partial(license_fields, api))
            contents = {**weights, **files, CARD_FILE: text.encode()}
            try:
                commit = api.create_commit(
                    repo_id,
                    [CommitOperationAdd(path, content) for path, content in contents.items()],
                    commit_message=message,
                    repo_type=repo_type,
                    revision=revision,
                    create_pr=create_pr and pull_request is None,
                    parent_commit=there.sha,
                )
            except HfHubHTTPError as error:
                if error.response.status_code != 412 or attempt == _ATTEMPTS:
                    raise
                continue
            return commit if pull_request is None else replace(commit, pr_url=pull_request.url)


def own_pull_request(api: HfApi, repo_id: str, repo_type: str, title: str) -> Discussion | None:
    """The open pull request that an earlier call made, so that a second call adds to it.

    Args:
        api (`HfApi`): The client, whose user's pull requests are looked at.
        repo_id (`str`): The repository.
        repo_type (`str`): `"model"` or `"dataset"`.
        title (`str`): Its title, which is the first commit's message.

    Returns:
        `Discussion`: The pull request, or `None`.
    """
    try:
        author = api.whoami()["name"]
        found = api.get_repo_discussions(
            repo_id, repo_type=repo_type, author=author, discussion_type="pull_request", discussion_status="open"
        )
        return next((own for own in found if own.title == title), None)
    except HfHubHTTPError:  # where none can be listed, the Hub says whether one can be opened
        return None


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


def repository(api: HfApi, repo_id: str, repo_type: str, private: bool | None) -> str:
    """The full name of a repository, which exists from now on.

    Args:
        api (`HfApi`): The client.
        repo_id (`str`): Its name, with or without the user's.
        repo_type (`str`): `"model"`, `"dataset"` or `"space"`.
        private (`bool`, *optional*): Make a new one private; an existing one has to be private already.

    Returns:
        `str`: Its name with the user's or organization's.

    Raises:
        HubError: There is a repository of this name of another type, or a public one that should be private.
    """
    if "/" not in repo_id:
        repo_id = f"{api.whoami()['name']}/{repo_id}"
    if api.repo_exists(repo_id, repo_type=repo_type):
        if private and not api.repo_info(repo_id, repo_type=repo_type).private:
            raise HubError(
                f"{repo_id!r} exists and is public, so nothing was pushed. Make it private in its settings, or leave "
                "private out."
            )
        return repo_id
    for other in ("model", "dataset", "space"):
        if other != repo_type and api.repo_exists(repo_id, repo_type=other):
            raise HubError(f"{repo_id!r} is a {other} repository. Choose another name than for this {repo_type}.")
    sdk = "gradio" if repo_type == "space" else None
    return api.create_repo(repo_id, repo_type=repo_type, space_sdk=sdk, private=private, exist_ok=True).repo_id


def _card(api: HfApi, repo_id: str, repo_type: str, revision: str) -> str | None:
    try:
        path = api.hf_hub_download(repo_id, CARD_FILE, repo_type=repo_type, revision=revision)
    except EntryNotFoundError:
        return None
    return Path(path).read_bytes().decode()


def _local_card(model_dir: str | Path | None) -> str | None:
    card = Path(model_dir) / CARD_FILE if model_dir is not None else None
    return card.read_bytes().decode() if card is not None and card.is_file() else None
