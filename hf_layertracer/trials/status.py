"""How far a trial is, while it runs or after it was interrupted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import LayerTracerError
from .config import TrialsConfig
from .folder import TrialFolder, read_json
from .run import trial_units


@dataclass(frozen=True)
class UnitStatus:
    """How far one run is.

    Args:
        name (`str`): The run's folder.
        state (`str`): `"finished"`, `"failed"`, `"running"`, `"interrupted"` or `"waiting"`.
        step (`int`): Optimizer steps made.
        steps (`int`): Optimizer steps of the whole run.
        note (`str`): What it does, or why it failed.
    """

    name: str
    state: str
    step: int
    steps: int
    note: str = ""


def trial_status(directory: str | Path) -> list[UnitStatus]:
    """Says of every run of a trial how far it is.

    Args:
        directory (`str` or `Path`): Folder that [`run_trials`] writes to.

    Returns:
        `list[UnitStatus]`: In the order in which they run.

    Raises:
        LayerTracerError: There is no trial in the folder.
    """
    folder = TrialFolder(Path(directory))
    trial, prepared = read_json(folder.trial), read_json(folder.prepared)
    if trial is None:
        raise LayerTracerError(f"{directory} holds no trial: layertracer trials run makes one.")
    config, works = TrialsConfig(**trial["config"]), folder.worker() is not None
    if prepared is None:
        failure = read_json(folder.preparing.failure)
        state = "running" if works else "failed" if failure else "interrupted"
        return [UnitStatus("preparation", state, 0, 0, failure["cause"] if failure else "diagnosing the model")]
    statuses = []
    waiting = False
    for unit in trial_units(folder, config, prepared):
        steps = config.train.steps if unit.arm is not None else 0
        name, progress = unit.folder.path.name, read_json(unit.folder.progress) or {}
        step, phase = progress.get("step", steps if "phase" in progress else 0), progress.get("phase", "")
        failure = read_json(unit.folder.failure)
        if unit.folder.result.is_file():
            statuses.append(UnitStatus(name, "finished", steps, steps))
        elif failure is not None:
            statuses.append(UnitStatus(name, "failed", step, steps, failure["cause"]))
        elif works and not waiting:
            waiting = True  # they run one after the other
            statuses.append(UnitStatus(name, "running", step, steps, phase or "loading"))
        else:
            statuses.append(UnitStatus(name, "interrupted" if progress else "waiting", step, steps))
    return statuses
