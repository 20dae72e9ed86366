"""How far a trial is, while it runs or after it was interrupted."""

from __future__ import annotations

from collections.abc import Sequence
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
        seconds_a_step (`float`, *optional*): How long its steps took; `None` where it has made none.
    """

    name: str
    state: str
    step: int
    steps: int
    note: str = ""
    seconds_a_step: float | None = None


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
        failure, pace = read_json(unit.folder.failure), progress.get("seconds_a_step")
        if unit.folder.result.is_file():
            statuses.append(UnitStatus(name, "finished", steps, steps, seconds_a_step=pace))
        elif failure is not None:
            statuses.append(UnitStatus(name, "failed", step, steps, failure["cause"], pace))
        elif works and not waiting:
            waiting = True  # they run one after the other
            statuses.append(UnitStatus(name, "running", step, steps, phase or "loading", pace))
        else:
            statuses.append(UnitStatus(name, "interrupted" if progress else "waiting", step, steps, "", pace))
    return statuses


def seconds_left(statuses: Sequence[UnitStatus]) -> float | None:
    """How long the runs that are not finished will take, at the pace of the steps made so far.

    Loading and evaluating count as a tenth of a run, as in the progress bar.

    Args:
        statuses (`Sequence[UnitStatus]`): What [`trial_status`] says.

    Returns:
        `float` or `None`: Seconds; `None` where no run has made a step.
    """
    paces = [unit.seconds_a_step for unit in statuses if unit.seconds_a_step]
    if not paces:
        return None
    left = sum(1.1 * unit.steps - unit.step for unit in statuses if unit.state != "finished")
    return left * sum(paces) / len(paces)
