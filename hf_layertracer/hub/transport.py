"""Reads reports from the Hub, and turns every error on the way into one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ..errors import HubError, LayerTracerError, ReportNotFoundError


# Of the library that speaks HTTP, which has changed its name between versions of huggingface_hub.
_HTTPError = HfHubHTTPError.__bases__[0]
_HUB_ERRORS = (_HTTPError, HFValidationError, LocalEntryNotFoundError, LocalTokenNotFoundError, OfflineModeIsEnabled)
_LOG_IN = "Log in with `hf auth login`, set HF_TOKEN or pass token=."
# In a dataset repository each report has a folder, whose name ends with the time and a hash.
REPORTS_FOLDER = "reports"
_STAMP = re.compile(r"-(\d{8}T\d{6}Z)-[0-9a-f]{8}$")


@contextmanager
def hub_errors(repo_id: str, token: str | bool | None = None, may_open_pr: bool = False) -> Iterator[None]:
    """Makes one clear line of whatever goes wrong while the Hub is talked to.

    Args:
        repo_id (`str`): The repository that is talked about.
        token (`str` or `bool`, *optional*): The token that was passed, if any.
        may_open_pr (`bool`, *optional*, defaults to `False`): Whether to advise a pull request.

    Raises:
        HubError: The Hub or the way to it failed.
    """
    try:
        yield
    except _HUB_ERRORS as error:
        raise HubError(explain(error, repo_id, token, may_open_pr)) from error
    except LayerTracerError:
        raise
    except JSONDecodeError as error:
        raise HubError("The Hub did not answer as it should. The same call again finishes the job.") from error
    except ValueError as error:
        # So does huggingface_hub report what the Hub says of a card.
        if "README.md" not in str(error):
            raise
        raise HubError(f"The Hub does not accept the card: {_one_line(str(error))}") from error
    except RuntimeError as error:
        # So does huggingface_hub report that a large file did not arrive.
        if not isinstance(error.__cause__, _HTTPError):
            raise
        raise HubError(explain(error.__cause__, repo_id, token, may_open_pr)) from error


def explain(error: Exception, repo_id: str, token: str | bool | None = None, may_open_pr: bool = False) -> str:
    """Says on one line what went wrong and what to do.

    Args:
        error (`Exception`): What huggingface_hub raised.
        repo_id (`str`): The repository that is talked about.
        token (`str` or `bool`, *optional*): The token that was passed, if any.
        may_open_pr (`bool`, *optional*, defaults to `False`): Whether to advise a pull request.

    Returns:
        `str`: One or more sentences.
    """
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, _HUB_ERRORS):
        error = error.__cause__
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    said = _one_line(response.headers.get("X-Error-Message", "") if response is not None else str(error))
    has_token = bool(token or (token is None and get_token()))
    if isinstance(error, OfflineModeIsEnabled | LocalEntryNotFoundError):
        return f"{repo_id!r} is not in the cache, and the Hub is not asked: HF_HUB_OFFLINE is set."
    if isinstance(error, HFValidationError):
        return f"{repo_id!r} is no name of a repository: {said}"
    if isinstance(error, LocalTokenNotFoundError) or (status == 401 and not has_token):
        return f"Without a token the Hub shows no {repo_id!r}: it does not exist or needs a login. {_LOG_IN}"
    if status == 401:
        return f"The Hub does not accept the token: it is wrong or has expired. {_LOG_IN}"
    if isinstance(error, GatedRepoError):
        return f"{repo_id!r} is gated: ask for access on its page."
    if isinstance(error, RevisionNotFoundError):
        return f"{repo_id!r} has no such revision."
    if isinstance(error, EntryNotFoundError):
        return f"{repo_id!r} has no such file."
    if isinstance(error, RepositoryNotFoundError):
        return f"{repo_id!r} does not exist on the Hub, or it is private and the token may not read it."
    if status == 403:
        advice = "Use one with write permission" + (
            ", or open a pull request: create_pr=True." if may_open_pr else "."
        )
        return f"The token may not do this to {repo_id!r} ({said.rstrip('.')}). {advice}"
    if status == 412:
        return f"Others push to {repo_id!r} at the same time. Call it again."
    if status is not None and status >= 500:
        return (
            f"The Hub had an error (HTTP {status}). Nothing local was changed: the same call again finishes the job."
        )
    if status is not None:
        return f"The Hub refused it (HTTP {status}): {said or 'no reason was given'}"
    return (
        f"The connection to the Hub broke ({said or type(error).__name__}). Nothing local was changed: the same call "
        "again finishes the job."
    )


def is_unreachable(error: BaseException | None) -> bool:
    """Whether an error says nothing of what is on the Hub, as the Hub did not answer."""
    absent = isinstance(
        error, EntryNotFoundError | RepositoryNotFoundError | RevisionNotFoundError | HFValidationError
    )
    return isinstance(error, LocalEntryNotFoundError) or (isinstance(error, _HUB_ERRORS) and not absent)


def download_report(
    repo_id: str, name: str, *, repo_type: str | None, subfolder: str | None, revision: str | None, token: str | None
) -> Path:
    """Fetches the file of a report into the cache.

    Args:
        repo_id (`str`): The repository.
        name (`str`): Name of the report's file.
        repo_type (`str`, *optional*): `"model"` or `"dataset"`; a model by default, else a dataset of this name.
        subfolder (`str`, *optional*): Where the file lies; of a dataset that collects reports, the newest by default.
        revision (`str`, *optional*): Branch, tag or commit.
        token (`str`, *optional*): For a private repository.

    Returns:
        `Path`: The file in the cache.

    Raises:
        ReportNotFoundError: There is none that can be read.
    """
    api = HfApi(token=token)
    kinds = [repo_type] if repo_type is not None else ["model", "dataset"]
    problem: Exception | None = None
    for kind in kinds:
        try:
            folder = subfolder
            if kind == "dataset" and folder is None:
                folder = _newest(api, repo_id, name, revision)
            return Path(api.hf_hub_download(repo_id, name, subfolder=folder, repo_type=kind, revision=revision))
        except RepositoryNotFoundError as error:
            problem = problem or error
        except (*_HUB_ERRORS, OSError, ValueError) as error:
            problem = error
            break
    known = isinstance(problem, _HUB_ERRORS)
    reason = explain(problem, repo_id, token) if problem is not None and known else _one_line(str(problem))
    raise ReportNotFoundError(
        f"No report at {repo_id!r}, neither as a local path nor on the Hub: {reason}"
    ) from problem


def report_folders(api: HfApi, repo_id: str, name: str, revision: str | None = None) -> list[str]:
    """The folders of a dataset repository that hold reports.

    Args:
        api (`HfApi`): The client.
        repo_id (`str`): The dataset repository.
        name (`str`): Name of a report's file.
        revision (`str`, *optional*): Branch, tag or commit.

    Returns:
        `list[str]`: Oldest report first.
    """
    files = api.list_repo_files(repo_id, repo_type="dataset", revision=revision)
    folders = [file.removesuffix(f"/{name}") for file in files if file.endswith(f"/{name}")]
    return sorted(folders, key=lambda folder: ((match := _STAMP.search(folder)) and match[1]) or "")


def _newest(api: HfApi, repo_id: str, name: str, revision: str | None) -> str | None:
    folders = report_folders(api, repo_id, name, revision)
    return folders[-1] if folders else None


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:200]}..."
