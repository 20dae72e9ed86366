"""Pushes a hybrid to the Hub: weights, recipe, where each layer comes from, picture and card, in one commit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import CommitInfo

from ..errors import ReportNotFoundError
from ..hub.card import model_card
from ..hub.destination import destination
from ..hub.model_files import model_files
from ..hub.privacy import public_report
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
    contents: dict[str, Any] = dict(model_files(folder))
    contents[HYBRID_FILE] = f"{record.model_dump_json(indent=1)}\n".encode()
    contents[RECIPE_FILE] = yaml.safe_dump(record.recipe, sort_keys=False, allow_unicode=True).encode()
    contents[PICTURE_FILE] = picture(record)
    try:
        report = public_report(LayerTracerReport.load(folder))
    except ReportNotFoundError:
        report = None
    message = commit_message or f"Add hybrid of {len(record.donors)} donors"
    with destination(
        repo_id, "model", message, revision=revision, create_pr=create_pr, private=private, token=token
    ) as place:
        card = hybrid_card(record, place.repo_id)
        if report is not None:
            contents |= report.files()
            card = model_card(card, report, place.repo_id)
        return place.commit({**contents, CARD_FILE: card.encode()})


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
