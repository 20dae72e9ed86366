"""Opens and finds reports on the Hub.

Requests are anonymous unless the owner of a page says otherwise: their token must not show private repositories to
visitors.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError

from ..errors import LayerTracerError, ReportNotFoundError
from ..hub.card import TAG
from ..hub.transport import hub_errors, report_folders
from ..report import REPORT_FILE, LayerTracerReport
from .escaping import plain
from .hub_places import HubPlace, hub_place
from .report_sources import MAX_BYTES, parse_report, read_bounded


def hub_report(place: str, token: bool = False) -> LayerTracerReport:
    """Reads the report of a repository on the Hub.

    Args:
        place (`str`):
            As `hub_place` takes it. Of a dataset that collects reports, the newest is taken where no folder is named.
        token (`bool`, *optional*, defaults to `False`): Whether to open what your login may read, or only what is public.

    Returns:
        [`LayerTracerReport`]: The report.

    Raises:
        ReportNotFoundError: There is no such repository that may be read, or it holds no report.
        LayerTracerError: The report cannot be opened, or the Hub cannot be reached.
    """
    asked = hub_place(place)
    content = hub_file(asked, REPORT_FILE, token)
    if content is not None:
        return parse_report(content, asked.repo_id)
    public = "" if token else "public "
    raise ReportNotFoundError(f"There is no {public}repository {plain(asked)} with a {REPORT_FILE} on the Hub.")


def hub_file(place: HubPlace, name: str, token: bool = False) -> bytes | None:
    """Reads a file that lies beside a report on the Hub.

    Args:
        place ([`HubPlace`]): Where the report is.
        name (`str`): The file.
        token (`bool`, *optional*, defaults to `False`): As in [`hub_report`].

    Returns:
        `bytes`: Its content; `None` where there is none that may be read.

    Raises:
        LayerTracerError: It is too large, or the Hub cannot be reached.
    """
    for kind in [place.kind] if place.kind else ["model", "dataset"]:
        with hub_errors(place.repo_id, token=token or False):
            try:
                return _fetched(place, kind, name, token)
            except HfHubHTTPError as error:
                if getattr(error.response, "status_code", None) not in (401, 403, 404):
                    raise
    return None


def _fetched(place: HubPlace, kind: str, name: str, token: bool) -> bytes:
    api, repo, folder = HfApi(token=token or False), place.repo_id, place.folder
    if kind == "dataset" and folder is None:
        folders = report_folders(api, repo, REPORT_FILE, place.revision)
        folder = folders[-1] if folders else None
    where = {"subfolder": folder, "repo_type": kind, "revision": place.revision}
    announced = get_hf_file_metadata(hf_hub_url(repo, name, **where), token=token or False)
    if announced.size is None or announced.size > MAX_BYTES:
        raise LayerTracerError(f"The {name} of {repo} is too large: up to {MAX_BYTES // 2**20} MiB are opened.")
    with tempfile.TemporaryDirectory() as scratch:
        return read_bounded(Path(api.hf_hub_download(repo, name, **where, local_dir=scratch)), repo)


def search_hub(text: str = "", limit: int = 30, token: bool = False) -> list[str]:
    """Repositories that are tagged as holding a report.

    Args:
        text (`str`, *optional*): What their name has to contain.
        limit (`int`, *optional*, defaults to `30`): Most ids of each kind of repository to return.
        token (`bool`, *optional*, defaults to `False`): Whether to find what your login may read, or only what is public.

    Returns:
        `list[str]`: Places as [`hub_report`] takes them, models first.

    Raises:
        LayerTracerError: The Hub cannot be reached.
    """
    api = HfApi(token=token or False)
    asked = {"filter": TAG, "search": plain(text) or None, "limit": limit}
    with hub_errors("the list of repositories", token=token or False):
        models = [model.id for model in api.list_models(**asked)]
        return models + [f"datasets/{dataset.id}" for dataset in api.list_datasets(**asked)]
