"""Where a push goes: a repository that exists, a branch or an open pull request of it, and one commit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, Discussion, HfApi
from huggingface_hub.errors import HfHubHTTPError

from .. import __version__
from ..errors import HubError
from .transport import hub_errors


@dataclass(frozen=True)
class Destination:
    """What a push writes to.

    Args:
        api (`HfApi`): The client.
        repo_id (`str`): The repository, with its owner.
        repo_type (`str`): `"model"`, `"dataset"` or `"space"`.
        message (`str`): The commit's first line.
        revision (`str`, *optional*): The branch, or that of an open pull request.
        create_pr (`bool`, *optional*): Whether the commit opens a pull request.
        pull_request (`Discussion`, *optional*): The open one that it adds to.
    """

    api: HfApi
    repo_id: str
    repo_type: str
    message: str
    revision: str | None = None
    create_pr: bool | None = None
    pull_request: Discussion | None = None

    def commit(self, contents: Mapping[str, bytes | str | Path], parent: str | None = None) -> CommitInfo:
        """Adds files in one commit.

        Args:
            contents (`Mapping[str, bytes | str | Path]`): Contents, or files on disk, by path in the repository.
            parent (`str`, *optional*): The commit that must still be the last one.

        Returns:
            `CommitInfo`: The commit, with the pull request's address if there is one.
        """
        commit = self.api.create_commit(
            self.repo_id,
            [CommitOperationAdd(path, content) for path, content in contents.items()],
            commit_message=self.message,
            repo_type=self.repo_type,
            revision=self.revision,
            create_pr=self.create_pr,
            parent_commit=parent,
        )
        return commit if self.pull_request is None else replace(commit, pr_url=self.pull_request.url)


@contextmanager
def destination(
    repo_id: str,
    repo_type: str,
    message: str,
    *,
    revision: str | None = None,
    create_pr: bool | None = None,
    private: bool | None = None,
    token: str | None = None,
) -> Iterator[Destination]:
    """Finds or makes a repository and its branch; within, what goes wrong with the Hub is one clear error.

    Args:
        repo_id (`str`): Its name, with or without the user's.
        repo_type (`str`): `"model"`, `"dataset"` or `"space"`.
        message (`str`): The commit's first line.
        revision (`str`, *optional*): Branch to push to, made where it does not exist; `main` by default.
        create_pr (`bool`, *optional*):
            Open a pull request instead, or add to the user's open one of the same title. `None` where the user has no such
            choice, so that none is advised.
        private (`bool`, *optional*): Make a new one private; an existing one has to be private already.
        token (`str`, *optional*): The one that the user is logged in with by default.

    Yields:
        [`Destination`]: Where to push.

    Raises:
        HubError: The Hub or the way to it failed, or there is a repository of this name of another type, or a public one
            that should be private.
    """
    api = HfApi(token=token, library_name="hf_layertracer", library_version=__version__)
    with hub_errors(repo_id, token, may_open_pr=create_pr is False):
        repo_id = _repository(api, repo_id, repo_type, private)
        if revision is not None and not revision.startswith("refs/"):
            api.create_branch(repo_id, branch=revision, repo_type=repo_type, exist_ok=True)
        earlier = _own_pull_request(api, repo_id, repo_type, message) if create_pr else None
        if earlier is not None:
            revision, create_pr = earlier.git_reference, False
        yield Destination(api, repo_id, repo_type, message, revision, create_pr, earlier)


def _repository(api: HfApi, repo_id: str, repo_type: str, private: bool | None) -> str:
    """The full name of a repository, which exists from now on, and is private if that was asked for."""
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


def _own_pull_request(api: HfApi, repo_id: str, repo_type: str, title: str) -> Discussion | None:
    """The open pull request of this title that an earlier call made, so that a second call adds to it."""
    try:
        author = api.whoami()["name"]
        found = api.get_repo_discussions(
            repo_id, repo_type=repo_type, author=author, discussion_type="pull_request", discussion_status="open"
        )
        return next((own for own in found if own.title == title), None)
    except HfHubHTTPError:  # where none can be listed, the Hub says whether one can be opened
        return None
