"""What a text names on the Hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from huggingface_hub import constants
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from ..errors import ReportNotFoundError
from ..report import REPORT_FILE
from .escaping import plain


_SITES = ("huggingface.co", "www.huggingface.co", "hf.co")
_REVISION = re.compile(r"[\w.-]+(/[\w.-]+)*")
# In an address, what stands between a repository and a revision.
_VIEWS = ("tree", "blob", "resolve", "raw", "commit")


@dataclass(frozen=True)
class HubPlace:
    """Where a report is on the Hub.

    Args:
        kind (`str`, *optional*): `"model"` or `"dataset"`; `None` for the model of this name, else the dataset.
        repo_id (`str`): The repository.
        revision (`str`, *optional*): Branch, tag or commit.
        folder (`str`, *optional*): The folder in it.
    """

    kind: str | None
    repo_id: str
    revision: str | None = None
    folder: str | None = None

    def __str__(self) -> str:
        path = "/".join(filter(None, ("datasets" if self.kind == "dataset" else "", self.repo_id, self.folder)))
        return f"{path}@{self.revision}" if self.revision else path


def hub_place(text: str) -> HubPlace:
    """What a text names on the Hub; never a path of this machine.

    Args:
        text (`str`):
            `"user/name"`, with `datasets/` before it or not, a folder behind it and `@revision` behind that; or an
            address of a page on huggingface.co.

    Returns:
        [`HubPlace`]: The place.

    Raises:
        ReportNotFoundError: It names no repository.

    Example:

    ```python
    >>> from hf_layertracer.viewer.hub_places import hub_place
    >>> hub_place("https://huggingface.co/alice/tiny/tree/main")
    HubPlace(kind=None, repo_id='alice/tiny', revision='main', folder=None)
    >>> str(hub_place("datasets/alice/reports@v1"))
    'datasets/alice/reports@v1'

    ```
    """
    path, at, revision = _path_of_address(text.strip()).partition("@")
    kind = "dataset" if path.startswith("datasets/") else None
    owner, name, *folders = [*path.removeprefix("datasets/").split("/"), ""]
    while folders and folders[-1] in ("", REPORT_FILE):
        folders.pop()
    try:
        validate_repo_id(f"{owner}/{name}")
        if all(folder.strip(".") and folder.isprintable() for folder in folders) and (
            not at or (_REVISION.fullmatch(revision) and ".." not in revision)
        ):
            return HubPlace(kind, f"{owner}/{name}", revision or None, "/".join(folders) or None)
    except HFValidationError:
        pass
    raise ReportNotFoundError(f"{plain(text)!r} is neither a report here nor the id of a repository (user/name).")


def _path_of_address(text: str) -> str:
    """The address of a page on the Hub as `[datasets/]user/name[/folder][@revision]`; other text as it is."""
    has_scheme = text.startswith(("https://", "http://"))
    try:
        address = urlsplit(text if has_scheme else f"https://{text}")
    except ValueError:
        return text
    if address.netloc not in (*_SITES, urlsplit(constants.ENDPOINT).netloc):
        return text
    parts = [unquote(part) for part in address.path.strip("/").split("/")]
    count = 3 if parts[0] == "datasets" else 2
    repository, view, rest = parts[:count], parts[count : count + 1], parts[count + 1 :]
    if view and view[0] in _VIEWS and rest:
        return f"{'/'.join([*repository, *rest[1:]])}@{rest[0]}"
    return "/".join(repository)
