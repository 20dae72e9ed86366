"""Kill -9 at any moment and start again: real processes, real kills, the same numbers."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from support.processes import wait_for

from hf_layertracer import LayerTracerReport, TrialsConfig
from hf_layertracer.trials.folder import TrialFolder, UnitFolder, living_process, read_json
from hf_layertracer.trials.status import trial_status


STEPS = 240


@pytest.fixture
def config(make_config) -> TrialsConfig:
    train = {"tokens": STEPS * 2 * 16, "batch_size": 2, "save_steps": 20}
    return make_config(arms=[{"strategy": "freeze-deep"}], train=train)


@pytest.fixture
def prepared(config, finished, tmp_path) -> Path:
    """A trial that lacks nothing but its one run: what comes before it need not be waited for."""
    folder = tmp_path / "out"
    shutil.copytree(finished(config), folder)
    unit = TrialFolder(folder).unit("freeze-deep-seed0")
    for path in unit.path.iterdir():
        if path != unit.settings:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder


@pytest.fixture
def start(config, tmp_path) -> Iterator[Callable[[Path], subprocess.Popen]]:
    """`start(folder, most_bytes=None)`: `layertracer trials run` in its own process; no file grows beyond the bytes."""
    path = tmp_path / "trials.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(exclude_none=True)))
    started: list[subprocess.Popen] = []

    def run(folder: Path, most_bytes: int | None = None) -> subprocess.Popen:
        command = [sys.executable, "-m", "hf_layertracer.cli", "trials", "run", str(path), "--out", str(folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        limit = None
        if most_bytes is not None:  # the kernel then refuses in the middle of a file, as on a disk that is full

            def limit() -> None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen(command, env=environment, preexec_fn=limit, **pipe))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def test_a_run_that_is_killed_with_its_parent_goes_on_from_its_checkpoint_to_the_same_numbers(
    prepared, start, config, finished
):
    unit = TrialFolder(prepared).unit("freeze-deep-seed0")
    parent = start(prepared)
    wait_for(parent, lambda: list(unit.training.glob("checkpoint-*/complete")))
    child = _child(unit)
    statuses = {status.name: status for status in trial_status(prepared)}
    assert statuses["freeze-deep-seed0"].state == "running"
    parent.send_signal(signal.SIGKILL)
    # Nobody else ends it: it must see for itself that its parent is gone.
    psutil.wait_procs([child], timeout=60)
    assert not child.is_running()
    assert not unit.result.exists()
    assert {status.name: status.state for status in trial_status(prepared)}["freeze-deep-seed0"] == "interrupted"

    again = start(prepared)
    output, _ = again.communicate(timeout=240)
    assert again.returncode == 0, output
    assert LayerTracerReport.load(unit.training).training.steps < STEPS  # it went on, and did not begin anew
    ours, theirs = (
        read_json(folder / "results.json")["rows"][1]["metrics"] for folder in (prepared, finished(config))
    )
    # Tolerance of two processes with other numbers of threads; a run that was not resumed exactly is off by far more.
    assert ours == pytest.approx(theirs, rel=1e-4)
    losses = read_json(unit.result)["losses"]
    assert losses == [
        [step, pytest.approx(loss, rel=1e-4)]
        for step, loss in read_json(TrialFolder(finished(config)).unit("freeze-deep-seed0").result)["losses"]
    ]


@pytest.mark.slow
def test_a_run_that_is_killed_alone_is_reported_with_its_cause(prepared, start):
    unit = TrialFolder(prepared).unit("freeze-deep-seed0")
    parent = start(prepared)
    wait_for(parent, lambda: read_json(unit.path / "process.json"))
    _child(unit).kill()
    output, _ = parent.communicate(timeout=120)
    assert parent.returncode == 1
    assert "Error: 1 of the runs failed" in output
    assert "SIGKILL" in read_json(unit.failure)["cause"]
    assert read_json(prepared / "results.json")["failures"] == {"freeze-deep-seed0": read_json(unit.failure)["cause"]}


@pytest.mark.slow
def test_a_disk_that_is_full_in_the_middle_is_one_line_and_the_run_goes_on_when_there_is_room(prepared, start):
    unit = TrialFolder(prepared).unit("freeze-deep-seed0")
    full = start(prepared, most_bytes=40_000)  # enough for all but a checkpoint's weights
    output, _ = full.communicate(timeout=120)
    assert full.returncode == 1
    assert "Error: 1 of the runs failed" in output
    assert "File too large" in read_json(unit.failure)["cause"]
    assert not unit.result.exists()
    again = start(prepared)
    output, _ = again.communicate(timeout=240)
    assert again.returncode == 0, output
    assert not unit.failure.exists()


def _child(unit: UnitFolder) -> psutil.Process:
    return psutil.Process(living_process(read_json(unit.path / "process.json")))
