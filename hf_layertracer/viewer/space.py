"""The viewer as a Space of one's own on the Hub."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from importlib.metadata import requires
from importlib.resources import as_file, files
from itertools import count
from pathlib import Path

from packaging.requirements import Requirement

from ..errors import HubError
from ..hub.destination import destination
from ..hub.privacy import public_report
from ..report import REPORT_FILE
from .escaping import for_file_name
from .report_sources import read_report


_SPACE = "hf_layertracer.viewer_space"
_LIBRARY = "hf_layertracer"
_TEMPLATES = "hf_layertracer.model_cards"
_EXTRA = "viewer"
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "__init__.py", "*.pyc")
# The CPU build of torch, as plain Spaces have no GPU and the default one is several gigabytes.
_INDEX = "--extra-index-url https://download.pytorch.org/whl/cpu"


def push_space(
    repo_id: str,
    *,
    reports: Mapping[str, Path] | None = None,
    private: bool | None = None,
    exist_ok: bool = False,
    token: str | None = None,
) -> str:
    """Creates the viewer's Space on the Hub, or brings it up to date.

    The Space gets this library's own source beside its `app.py`, so that it runs the version that pushed it. No token
    is stored in it: it reads the Hub anonymously. Of paths in the reports, only the last part is published.

    Args:
        repo_id (`str`): Name of the Space, with or without the user's.
        reports (`Mapping[str, Path]`, *optional*):
            Report files to start with, by name, in place of the examples that ship with the viewer.
        private (`bool`, *optional*): Make a new Space private. An existing public one is refused.
        exist_ok (`bool`, *optional*, defaults to `False`): Whether a Space that holds something else may be overwritten.
        token (`str`, *optional*): To write with; the one that you are logged in with by default.

    Returns:
        `str`: The Space's address.

    Raises:
        HubError: You may not write there, or the Space holds something else.
        LayerTracerError: A report cannot be opened.

    Example:

    ```python
    from pathlib import Path

    from hf_layertracer import push_space

    push_space("alice/viewer", reports={"mine": Path("my-report/layertracer_report.json")})
    ```
    """
    with tempfile.TemporaryDirectory() as folder:
        space = Path(folder, "space")
        build_space(space, reports)
        with destination(repo_id, "space", "LayerTracer viewer", private=private, token=token) as place:
            there = set(place.api.list_repo_files(place.repo_id, repo_type="space"))
            if not exist_ok and "app.py" in there and f"{_LIBRARY}/viewer/app.py" not in there:
                raise HubError(
                    f"The Space {place.repo_id!r} holds another app, so nothing was pushed. Choose another name, or pass "
                    "exist_ok=True (--exist-ok) to overwrite it."
                )
            # What an earlier version left and this one does not have goes, in the same commit.
            place.api.upload_folder(
                repo_id=place.repo_id,
                repo_type="space",
                folder_path=space,
                commit_message=place.message,
                delete_patterns=["examples/*", f"{_LIBRARY}/*"],
            )
            return f"{place.api.endpoint}/spaces/{place.repo_id}"


def example_reports() -> Path:
    """The folder with the reports that ship with the viewer."""
    with as_file(files(_SPACE)) as shipped:
        return shipped / "examples"


def build_space(folder: Path, reports: Mapping[str, Path] | None = None) -> None:
    """Writes everything that a Space needs to run into a folder.

    Args:
        folder (`Path`): Made anew.
        reports (`Mapping[str, Path]`, *optional*):
            Report files by name, in place of the examples. Paths in them lose all but their last part.

    Raises:
        LayerTracerError: A report cannot be opened.
    """
    checked = {name: read_report(path) for name, path in (reports or {}).items()}
    with as_file(files(_SPACE)) as shipped:
        shutil.copytree(shipped, folder, ignore=_LEFT_OUT)
    with as_file(files(_LIBRARY)) as library, as_file(files(_TEMPLATES)) as templates:
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc", "viewer_space")
        shutil.copytree(library, folder / _LIBRARY, ignore=ignored)
        # In a checkout they lie beside the library.
        shutil.copytree(templates, folder / _LIBRARY / "model_cards", ignore=ignored, dirs_exist_ok=True)
    (folder / "requirements.txt").write_text(requirements(), encoding="utf-8")
    if checked:
        shutil.rmtree(folder / "examples", ignore_errors=True)
    taken: set[str] = set()
    for name, report in checked.items():
        stem = for_file_name(name)
        numbered = (stem if number == 1 else f"{stem}-{number}" for number in count(1))
        # Some file systems take upper and lower case for the same.
        chosen = next(place for place in numbered if place.casefold() not in taken)
        taken.add(chosen.casefold())
        target = folder / "examples" / chosen
        target.mkdir(parents=True)
        (target / REPORT_FILE).write_bytes(public_report(report).to_json())


def requirements() -> str:
    """The third-party packages that this version of the viewer needs, as `requirements.txt` lists them."""
    lines = [_INDEX]
    for text in requires(_LIBRARY) or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": _EXTRA}):
            requirement.marker = None
            lines.append(str(requirement))
    return "\n".join(lines) + "\n"
