"""Diagnoses a small model of the Hub for a visitor: in a separate process that can be cancelled and has no token."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError

from ..errors import LayerTracerError
from ..hub.transport import hub_errors
from ..report import REPORT_FILE, LayerTracerReport
from .escaping import plain
from .hub_places import hub_place


# Set by the owner of a page to let its visitors run models there.
SWITCH = "LAYERTRACER_VIEWER_DIAGNOSE"
MAX_MODEL_BYTES = 2**30
MAX_PROBES = 64
_MAX_SECONDS = 900
_MAX_MEMORY = 12 * 2**30
_POLL_SECONDS = 0.5
_PROGRESS = re.compile(rb"^Diagnosing \d+ layers: (\d+) %", re.MULTILINE)
_SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|KEY|CREDENTIAL", re.IGNORECASE)


def is_offered() -> bool:
    """Whether the owner of this page allows visitors to diagnose models."""
    return os.environ.get(SWITCH, "").strip().lower() in ("1", "true", "yes", "on")


def check_size(model_id: str) -> str:
    """Asks the Hub, anonymously, whether a model is public, safe to load and small enough.

    Args:
        model_id (`str`): `"user/name"`.

    Returns:
        `str`: The id, as it may be loaded.

    Raises:
        LayerTracerError: It is not public, has no safetensors weights or is too large.
    """
    place = hub_place(model_id)
    name = place.repo_id
    if str(place) != name:
        raise LayerTracerError(f"{plain(model_id)} is not the id of a model, which looks like user/name.")
    with hub_errors(name, token=False):
        try:
            info = HfApi(token=False).model_info(name, files_metadata=True)
        except HfHubHTTPError as error:
            if getattr(error.response, "status_code", None) not in (401, 403, 404):
                raise
            raise LayerTracerError(f"There is no public model {name} on the Hub.") from error
    files = info.siblings or []
    weights = [file.size for file in files if file.rfilename.endswith(".safetensors")]
    if not weights:
        raise LayerTracerError(
            f"{name} has no safetensors weights. Other formats can run code and are not loaded here."
        )
    if None in weights or sum(weights) > MAX_MODEL_BYTES:
        raise LayerTracerError(
            f"{name} is too large for this page, which loads weights of up to {MAX_MODEL_BYTES / 2**30:g} GiB. On "
            f"your own machine: layertracer diagnose {name}"
        )
    return name


def diagnose_live(model_id: str, *, probes: int = 32, quick: bool = True) -> Iterator[float | LayerTracerReport]:
    """Runs `layertracer diagnose` on a model; closing the iterator ends the process.

    The process has a home, a cache and a working folder of its own, which are deleted with it, a limit of memory and
    time, and no token or other secret of this one.

    Args:
        model_id (`str`): `"user/name"`, a public model with safetensors weights.
        probes (`int`, *optional*, defaults to `32`): How many of the package's probes to ask.
        quick (`bool`, *optional*, defaults to `True`): Take the quick look of `layertracer diagnose --quick`.

    Yields:
        `float` or [`LayerTracerReport`]: The fraction done, now and then; in the end the report.

    Raises:
        LayerTracerError: The model cannot be loaded or diagnosed, or takes too long.
    """
    name = check_size(model_id)
    with tempfile.TemporaryDirectory(prefix="layertracer-live-") as home:
        work, log = Path(home, "work"), Path(home, "log")
        work.mkdir()
        command = [sys.executable, "-m", "hf_layertracer.cli", "diagnose", name, "--out", str(Path(home, "out"))]
        command += ["--max-probes", str(min(max(2, int(probes)), MAX_PROBES))]
        command += ["--quick"] if quick else []
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=work,  # an id must never be taken for a folder of this page
                env=anonymous_environment(home),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            _limit_memory(process.pid)
            yield from _follow(process, log)
            if process.returncode:
                raise LayerTracerError(_reason(log, name))
            report = LayerTracerReport.load(Path(home, "out", REPORT_FILE))
            yield report
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def anonymous_environment(home: str) -> dict[str, str]:
    """This process's environment without its secrets, and with all of Hugging Face's folders elsewhere.

    Args:
        home (`str`): An empty folder.

    Returns:
        `dict[str, str]`: The variables.
    """
    kept = {
        name: value for name, value in os.environ.items() if not _SECRET.search(name) and not name.startswith("HF_")
    }
    return kept | {
        "HOME": home,
        "HF_HOME": os.path.join(home, "hf"),
        "HF_ENDPOINT": constants.ENDPOINT,
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONUNBUFFERED": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def _follow(process: subprocess.Popen, log: Path) -> Iterator[float]:
    """The fraction done until the process ends, from its own progress bar."""
    began = time.monotonic()
    while process.poll() is None:
        if time.monotonic() - began > _MAX_SECONDS:
            raise LayerTracerError(
                f"This took more than {_MAX_SECONDS // 60} minutes and was stopped: use fewer probes."
            )
        seen = _PROGRESS.findall(log.read_bytes())
        yield int(seen[-1]) / 100 if seen else 0.0
        time.sleep(_POLL_SECONDS)


def _reason(log: Path, name: str) -> str:
    """The last line in which the command says what was wrong, without paths of this machine."""
    lines = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
    said = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
    if not said:
        return f"Diagnosing {name} stopped early, most likely because it ran out of memory. Try a smaller model."
    return plain(said[-1].replace(str(log.parent), ""), 300)


def _limit_memory(pid: int) -> None:
    try:
        import resource

        resource.prlimit(pid, resource.RLIMIT_AS, (_MAX_MEMORY, _MAX_MEMORY))
    except (ImportError, AttributeError, ProcessLookupError):  # other systems have no such limit
        pass
