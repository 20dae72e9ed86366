"""Runs a trial: every arm with every seed, one after the other, each in its own process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..documents import read_documents
from ..errors import LayerTracerError
from ..evaluation import check_evaluation
from ..evaluation.result import PAIRED_METRICS, not_finite
from ..files import check_writable
from ..logs import get_logger
from ..modeling.devices import default_device, warn_if_emulated
from ..progress import progress_bar
from .config import UNTOUCHED, TrialsConfig
from .fingerprint import (
    PROTOCOL,
    differences,
    files_fingerprint,
    fingerprint,
    pinned,
    shared_facts,
    unit_facts,
)
from .folder import TrialFolder, UnitFolder, read_json, write_json
from .process import run_module
from .results import TrialsResult
from .summary import Summary


logger = get_logger(__name__)


@dataclass(frozen=True)
class Unit:
    """One run.

    Args:
        name (`str`): The arm's name.
        seed (`int`, *optional*): The seed; the untouched model has none.
        arm (`dict[str, Any]`, *optional*): The arm with all its options.
        folder ([`UnitFolder`]): Where it lies.
    """

    name: str
    seed: int | None
    arm: dict[str, Any] | None
    folder: UnitFolder


def run_trials(config: TrialsConfig, out_dir: str | Path) -> TrialsResult:
    """Trains and evaluates every arm with every seed, and the untouched model.

    Each run has its own folder and process. Finished runs are kept: call it again after an interruption, and the
    run that was cut goes on from its last checkpoint, to the same numbers. A run that fails is reported with its cause,
    the others still finish, and the next call tries it again.

    Args:
        config ([`TrialsConfig`]): What to compare.
        out_dir (`str` or `Path`): Folder for everything; one of another config is refused.

    Returns:
        [`TrialsResult`]: Also written there as `results.json`, `results.md` and pictures.

    Raises:
        LayerTracerError: The config, its files or the folder cannot be used, the model cannot be loaded, or nothing measures
            the objective.

    Example:

    ```python
    from hf_layertracer import TrialsConfig, run_trials

    result = run_trials(TrialsConfig.from_file("trials.yaml"), "trials-out")
    print(result.to_markdown())
    ```
    """
    check_trials(config)
    if config.train.bf16:
        warn_if_emulated(torch.bfloat16, default_device())
    folder = TrialFolder(Path(out_dir))
    check_writable(folder.path)
    folder.claim()
    try:
        config = pinned(config)
        facts = shared_facts(config)
        _open(folder, config, facts)
        prepared = _prepared(folder, config, facts)
        units = list(trial_units(folder, config, prepared))
        for unit in units:
            _open_unit(unit, config, facts)
        with _Bar(units, config.train.steps) as bar:
            for unit in units:
                if not unit.folder.result.is_file():
                    bar.begin(unit)
                    _run(unit, config, bar.update)
                    bar.end()
                    collect(folder).save(folder.path, pictures=False)
                if unit.arm is None:
                    _check_objective(config, read_json(unit.folder.result))
        result = collect(folder)
        result.save(folder.path)
        return result
    finally:
        folder.release()


def _run(unit: Unit, config: TrialsConfig, watch: Callable[[], None]) -> None:
    cause = run_module(
        f"{__package__}.unit",
        unit.folder.path,
        unit.folder.log,
        unit.folder.failure,
        processes=1 if unit.arm is None else config.processes,
        watch=watch,
    )
    if cause is not None:
        logger.warning(f"The run {unit.folder.path.name} failed: {cause}")


def _check_objective(config: TrialsConfig, untouched: dict[str, Any] | None) -> None:
    """Refuses an objective that nothing was measured for: what a task measures is known once it has been asked."""
    if config.objective is None or untouched is None:
        return
    measured = [name for name in untouched["evaluation"]["metrics"] if name.rpartition("/")[2] in PAIRED_METRICS]
    for field in ("learn", "forget"):
        metric = getattr(config.objective, field)
        if getattr(config.objective, f"w_{field}") and metric not in measured:
            raise LayerTracerError(f"objective.{field}: {metric} was not measured: there are {', '.join(measured)}.")


def check_trials(config: TrialsConfig) -> None:
    """Finds what is wrong with a config's files before anything is computed.

    Args:
        config ([`TrialsConfig`]): The config.

    Raises:
        LayerTracerError: A file is not there or holds no text; the line begins with its place in the config.
    """
    for place, files in (
        ("train.files", config.train.files),
        ("evaluate.new", config.evaluate.new),
        ("evaluate.old", config.evaluate.old),
        *((f"arms: {arm.name}: files", arm.files or []) for arm in config.arms),
    ):
        for path in files:
            if not Path(path).is_file():
                raise LayerTracerError(f"{place}: there is no file {path}.")
        try:
            found = any(True for path in files for _ in read_documents(path))
        except LayerTracerError as error:
            raise LayerTracerError(f"{place}: {error}") from error
        if files and not found:
            raise LayerTracerError(f"{place}: there is no text in {', '.join(files)}.")
    try:
        check_evaluation(config.evaluate)
    except LayerTracerError as error:
        raise LayerTracerError(f"evaluate: {error}") from error


def trial_units(folder: TrialFolder, config: TrialsConfig, prepared: dict[str, Any]) -> Iterator[Unit]:
    """The runs in their order: the untouched model, then all arms with the first seed, with the second, ..."""
    yield Unit(UNTOUCHED, None, None, folder.unit(UNTOUCHED))
    for seed in config.seeds:
        for entry in prepared["arms"]:
            arm = entry["arm"]
            yield Unit(arm["name"], seed, arm, folder.unit(f"{arm['name']}-seed{seed}"))


def collect(folder: TrialFolder) -> TrialsResult:
    """Reads what a trial has come to so far.

    Args:
        folder ([`TrialFolder`]): The trial's folder.

    Returns:
        [`TrialsResult`]: The finished runs, and the causes of those that failed.

    Raises:
        LayerTracerError: There is no trial in the folder, or a run of another config lies in it.
    """
    trial, prepared = read_json(folder.trial), read_json(folder.prepared)
    if trial is None or prepared is None:
        raise LayerTracerError(f"{folder.path} holds no trial: layertracer trials run makes one.")
    units = list(trial_units(folder, TrialsConfig(**trial["config"]), prepared))
    finished, failures, missing = [], {}, []
    for unit in units:
        name = unit.folder.path.name
        if (result := read_json(unit.folder.result)) is not None:
            # Runs of an earlier protocol do not hold their facts, and none is added to them.
            if trial["facts"].get("protocol") == PROTOCOL:
                settings = read_json(unit.folder.settings)
                _check_unit(unit.folder, settings, result, trial["facts"])
                _check_arm(unit.folder, settings, {"arm": unit.arm, "seed": unit.seed})
            metric = not_finite(result["evaluation"]["metrics"])
            if metric is None:
                finished.append(result)
                continue
            # Earlier versions kept the numbers of a run that diverged, of which there are no means and differences.
            failures[name] = f"diverged: {metric} is not finite."
        elif (failure := read_json(unit.folder.failure)) is not None:
            failures[name] = failure["cause"]
        missing.append(name)
    result = TrialsResult(
        config=trial["config"],
        versions=trial["facts"]["versions"],
        machine=" and ".join(dict.fromkeys(run["machine"] for run in finished if "machine" in run)),
        arms=prepared["arms"],
        units=finished,
        failures=failures,
        missing=missing,
        notes=prepared["notes"],
    )
    result.notes += Summary(result).not_compared()
    return result


def _open(folder: TrialFolder, config: TrialsConfig, facts: dict[str, Any]) -> None:
    """Takes the folder over, unless it or a run in it belongs to another config."""
    # What is prepared holds the facts too: text and diagnosis of before would go on to be used without trial.json.
    there = read_json(folder.trial) or read_json(folder.prepared)
    if there is not None and (changed := differences(there.get("facts", {}), facts)):
        raise LayerTracerError(
            f"{folder.path} holds results of another config: {_first(changed)}. Choose another folder with --out."
        )
    # Before anything is written: the config that the folder belongs to can still go on.
    for name in [UNTOUCHED, *(f"{arm.name}-seed{seed}" for arm in config.arms for seed in config.seeds)]:
        unit = folder.unit(name)
        _check_unit(unit, read_json(unit.settings), read_json(unit.result), facts)
    write_json(folder.trial, {"config": config.model_dump(), "facts": facts})


def _check_unit(
    folder: UnitFolder, settings: dict[str, Any] | None, result: dict[str, Any] | None, facts: dict[str, Any]
) -> None:
    """Refuses a run that was made or begun with another config, as one that was copied from elsewhere."""
    if settings is None and result is None:
        return
    settings = settings or {}
    changed = differences(settings.get("facts", {}), unit_facts(facts, folder.path.name == UNTOUCHED))
    if not changed and result is not None and result["fingerprint"] != settings["fingerprint"]:
        changed = [f"fingerprint: {result['fingerprint']} in result.json, {settings['fingerprint']} in unit.json"]
    if changed:
        raise LayerTracerError(
            f"{folder.path} holds a run of another config: {_first(changed)}. Remove that folder, or choose another "
            "one with --out."
        )


def _check_arm(folder: UnitFolder, settings: dict[str, Any] | None, own: dict[str, Any]) -> None:
    """Refuses a run of another arm that has the same name."""
    if settings is not None and (changed := differences({name: settings["own"][name] for name in own}, own)):
        raise LayerTracerError(
            f"{folder.path} holds results of another arm of that name: {changed[0]}. Give the arm another name, or "
            "choose another folder with --out."
        )


def _first(changed: list[str]) -> str:
    return changed[0] + (f" (and {len(changed) - 1} more)" if len(changed) > 1 else "")


def _prepared(folder: TrialFolder, config: TrialsConfig, facts: dict[str, Any]) -> dict[str, Any]:
    """The arms with all their options, from an earlier run or made now."""
    arms = [[arm.model_dump(), files_fingerprint(arm.files)] for arm in config.arms]
    wanted = fingerprint([facts, config.match, arms, config.seeds])
    there = read_json(folder.prepared)
    if there is not None and there["fingerprint"] == wanted:
        return there
    with progress_bar("Preparing: data, diagnosis, plans") as bar:
        cause = run_module(
            f"{__package__}.prepare",
            folder.path,
            folder.preparing.log,
            folder.preparing.failure,
            watch=lambda: bar.update(0),
        )
    if cause is not None:
        raise LayerTracerError(cause)
    prepared = {**read_json(folder.prepared), "fingerprint": wanted, "facts": facts}
    write_json(folder.prepared, prepared)
    return prepared


def _open_unit(unit: Unit, config: TrialsConfig, facts: dict[str, Any]) -> None:
    own = {"arm": unit.arm, "seed": unit.seed, "files": files_fingerprint(unit.arm and unit.arm["files"])}
    _check_arm(unit.folder, read_json(unit.folder.settings), own)
    shared = unit_facts(facts, unit.arm is None)
    write_json(
        unit.folder.settings,
        {
            "name": unit.name,
            **own,
            "own": own,
            "facts": shared,
            "config": config.model_dump(),
            "fingerprint": fingerprint({"shared": shared, **own}),
        },
    )


class _Bar:
    """A progress bar over all runs, in optimizer steps, with the time left."""

    def __init__(self, units: list[Unit], steps: int):
        self._steps = steps
        # Loading and evaluating take time too: count them as a tenth of a run.
        self._extra = max(1, steps // 10)
        self._unit: Unit | None = None
        finished = [unit for unit in units if unit.folder.result.is_file()]
        # What was there already says nothing about the speed.
        self._done = self._shown = sum(self._size(unit) for unit in finished)
        total = sum(self._size(unit) for unit in units)
        self._bar = progress_bar("trials", total=total, unit="steps", initial=self._done)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.close()

    def begin(self, unit: Unit) -> None:
        """Names the run that is made now."""
        self._unit = unit
        self._bar.set_description(unit.folder.path.name, refresh=False)

    def update(self) -> None:
        """Counts the steps of the run so far."""
        progress = read_json(self._unit.folder.progress) or {}
        # While a run is evaluated, it says no step.
        self._show(max(self._shown, self._done + progress.get("step", 0)))

    def end(self) -> None:
        """Counts all of a run."""
        self._done += self._size(self._unit)
        self._show(self._done)

    def _size(self, unit: Unit) -> int:
        return self._extra + (self._steps if unit.arm is not None else 0)

    def _show(self, done: int) -> None:
        self._bar.update(done - self._shown)
        self._shown = done
