"""The viewer as a Space of one's own on the Hub."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from importlib.metadata import requires
from importlib.resources import as_file, files
from pathlib import Path

from huggingface_hub import HfApi
from packaging.requirements import Requirement

from ..hub.transport import hub_errors
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
    token: str | None = None,
) -> str:
    """Creates the viewer's Space on the Hub, or brings it up to date.

    The Space gets this library's own source beside its `app.py`, so that it runs the version that pushed it. No token
    is stored in it: it reads the Hub anonymously.

    Args:
        repo_id (`str`): `"user/name"` of the Space.
        reports (`Mapping[str, Path]`, *optional*):
            Report files to start with, by name, in place of the examples that ship with the viewer.
        private (`bool`, *optional*): Whether only you see it, where it is new.
        token (`str`, *optional*): To write with; the one that you are logged in with by default.

    Returns:
        `str`: The Space's address.

    Raises:
        LayerTracerError: A report cannot be opened, the id is none, or you may not write there.

    Example:

    ```python
    from pathlib import Path

    from hf_layertracer import push_space

    push_space("alice/viewer", reports={"mine": Path("my-report/layertracer_report.json")})
    ```
    """
    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        space = Path(folder, "space")
        build_space(space, reports)
        with hub_errors(repo_id, token):
            address = api.create_repo(repo_id, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
            # What an earlier version left and this one does not have goes, in the same commit.
            api.upload_folder(
                repo_id=repo_id,
                repo_type="space",
                folder_path=space,
                commit_message="LayerTracer viewer",
                delete_patterns=["examples/*", f"{_LIBRARY}/*"],
            )
    return str(address)


def example_reports() -> Path:
    """The folder with the reports that ship with the viewer."""
    with as_file(files(_SPACE)) as shipped:
        return shipped / "examples"


def build_space(folder: Path, reports: Mapping[str, Path] | None = None) -> None:
    """Writes everything that a Space needs to run into a folder.

    Args:
        folder (`Path`): Made anew.
        reports (`Mapping[str, Path]`, *optional*): Report files by name, in place of the examples.

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
    for name, report in checked.items():
        target = folder / "examples" / for_file_name(name)
        target.mkdir(parents=True, exist_ok=True)
        (target / REPORT_FILE).write_text(report.model_dump_json() + "\n", encoding="utf-8")


def requirements() -> str:
    """The third-party packages that this version of the viewer needs, as `requirements.txt` lists them."""
    lines = [_INDEX]
    for text in requires(_LIBRARY) or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": _EXTRA}):
            requirement.marker = None
            lines.append(str(requirement))
    return "\n".join(lines) + "\n"
