"""Pushes a hybrid to the Hub: weights, recipe, where each layer comes from, picture and card, in one commit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi

from .. import __version__
from ..errors import ReportNotFoundError
from ..hub.card import model_card
from ..hub.model_files import model_files
from ..hub.privacy import public_report
from ..hub.push import own_pull_request, repository
from ..hub.transport import hub_errors
from ..modeling.facts import public_model_id
from ..report import CARD_FILE, LayerTracerReport
from .card import hybrid_card
from .picture import PICTURE_FILE, picture
from .provenance import HYBRID_FILE, RECIPE_FILE, HybridRecord


def push_hybrid(
    folder: str | Path,
    repo_id: str,
    *,
    commit_message: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    private: bool | None = None,
    token: str | None = None,
) -> CommitInfo:
    """Pushes a hybrid with its recipe, `layertracer_hybrid.json`, picture and card, in one commit.

    A report that lies in the folder (`layertracer diagnose DIR --out DIR`) goes along. Of folders that the recipe names,
    only the last part is published. The same call again changes nothing, so it finishes a push that broke.

    Args:
        folder (`str` or `Path`): What [`build_hybrid`] made.
        repo_id (`str`): The repository, made where it does not exist.
        commit_message (`str`, *optional*): The commit's first line.
        revision (`str`, *optional*): Branch to push to, made where it does not exist; `main` by default.
        create_pr (`bool`, *optional*, defaults to `False`):
            Open a pull request instead, or add to your open one of the same title.
        private (`bool`, *optional*): Make a new repository private; your account's default otherwise.
        token (`str`, *optional*): The one that you are logged in with by default.

    Returns:
        `CommitInfo`: The commit, with the pull request's address if one was opened.

    Raises:
        HubError: The Hub or the way to it failed; call it again.
        LayerTracerError: The folder holds no hybrid.

    Example:

    ```python
    from hf_layertracer import push_hybrid

    push_hybrid("my-hybrid", "my-name/my-hybrid", private=True)
    ```
    """
    folder = Path(folder)
    record = public_record(HybridRecord.load(folder))
    api = HfApi(token=token, library_name="hf_layertracer", library_version=__version__)
    contents: dict[str, Any] = dict(model_files(folder))
    contents[HYBRID_FILE] = f"{record.model_dump_json(indent=1)}\n".encode()
    contents[RECIPE_FILE] = yaml.safe_dump(record.recipe, sort_keys=False, allow_unicode=True).encode()
    contents[PICTURE_FILE] = picture(record)
    try:
        report = public_report(LayerTracerReport.load(folder))
    except ReportNotFoundError:
        report = None
    with hub_errors(repo_id, token, may_open_pr=not create_pr):
        repo_id = repository(api, repo_id, "model", private)
        card = hybrid_card(record, repo_id)
        if report is not None:
            contents |= report.files()
            card = model_card(card, report, repo_id)
        contents[CARD_FILE] = card.encode()
        if revision is not None and not revision.startswith("refs/"):
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        message = commit_message or f"Add hybrid of {len(record.donors)} donors"
        earlier = own_pull_request(api, repo_id, "model", message) if create_pr else None
        commit = api.create_commit(
            repo_id,
            [CommitOperationAdd(name, content) for name, content in contents.items()],
            commit_message=message,
            revision=earlier.git_reference if earlier else revision,
            create_pr=create_pr and earlier is None,
        )
        return replace(commit, pr_url=earlier.url) if earlier else commit


def public_record(record: HybridRecord) -> HybridRecord:
    """A record as it may be published: of folders that its recipe names, only the last part is left.

    Args:
        record ([`HybridRecord`]): The record, which is not changed.

    Returns:
        [`HybridRecord`]: A copy.
    """
    recipe = dict(record.recipe)
    for name in ("base", "embeddings", "norm", "head", "tokenizer"):
        if name in recipe:
            recipe[name] = public_model_id(recipe[name])
    if "layers" in recipe:
        recipe["layers"] = [{**source, "from": public_model_id(source["from"])} for source in recipe["layers"]]
    return record.model_copy(update={"recipe": recipe})
