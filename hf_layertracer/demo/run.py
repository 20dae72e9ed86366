"""The main job on a real model, as a trial: diagnose, train with the deep layers frozen and in full, compare."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from ..config import DiagnosisConfig
from ..diagnosis.diagnose import diagnose
from ..errors import LayerTracerError
from ..files import check_writable, write_atomically
from ..modeling.loading import load_model
from ..probes import Probe, load_probes
from ..report import LayerTracerReport
from ..text import one_line
from ..trials import TrialsConfig, TrialsResult, run_trials
from ..trials.folder import TrialFolder
from .budget import BATCH_SIZE, BLOCK_TOKENS, Look, Speed, Training, choose_look, choose_training, training_seconds
from .corpus import standard_library_docs, write_corpus
from .model import MODEL_ID, NOTE, demo_model


TRIAL = "trial"  # folder of the trial, in that of the demo
# Each at the rate that was best for it on documentation of Python: docs/results.md.
_ARMS = ({"strategy": "freeze-deep", "learning_rate": 3e-4}, {"strategy": "full", "learning_rate": 1e-4})


@dataclass(frozen=True)
class DemoResult:
    """What the demo came to.

    Args:
        report ([`LayerTracerReport`]): The diagnosis, with the plan and the training of the run that froze layers.
        trial ([`TrialsResult`]): Both runs and the untouched model, compared.
    """

    report: LayerTracerReport
    trial: TrialsResult


def run_demo(
    output: str | Path,
    *,
    minutes: float = 6,
    seed: int = 0,
    say: Callable[[str], object] = print,
    clock: Callable[[], float] = time.monotonic,
) -> DemoResult:
    """Runs the demo, as much of it as fits a time.

    The first steps of everything are timed; then the look at the model is as close, and the training as long, as the time
    allows. The folder then holds the report with picture and card, and under `trial/` what [`run_trials`] leaves.

    Args:
        output (`str` or `Path`): Folder for everything; the trial of an earlier demo in it is replaced.
        minutes (`float`, *optional*, defaults to `6`): Time for everything but installing and converting the model.
        seed (`int`, *optional*, defaults to `0`): Seed of everything random.
        say (`Callable`, *optional*, defaults to `print`): Takes a line about what is done.
        clock (`Callable`, *optional*): The time in seconds.

    Returns:
        [`DemoResult`]: Report and comparison.

    Raises:
        LayerTracerError: The model is not installed, a run failed or the folder cannot be written to.
    """
    output = Path(output)
    check_writable(output)
    model = demo_model()
    began, cpu = clock(), _cpu_seconds()
    say("Timing the first steps on this machine ...")
    speed = measure_speed(model, clock)
    left = 60 * minutes - (clock() - began)
    look = choose_look(speed, left)
    expected = choose_training(speed, look, minutes, left - look.seconds(speed))
    say(_intention(speed, look, expected, minutes, left))

    train, held_out = write_corpus(standard_library_docs(), output / "data")
    probes = load_probes(max_probes=look.probes, seed=seed)
    folder = TrialFolder(output / TRIAL)
    shutil.rmtree(folder.path, ignore_errors=True)
    report = _diagnosed(model, probes, look, speed, seed)
    report.save_or_keep(folder.diagnosis)  # where the trial finds it

    training = choose_training(speed, look, minutes, 60 * minutes - (clock() - began))
    if training != expected:
        say(f"With the time that is left: {_amount(training)}.")
    trial = run_trials(
        TrialsConfig(
            model=str(model),
            train={
                "files": [str(train)],
                "tokens": training.tokens,
                "sequence_length": BLOCK_TOKENS,
                "batch_size": BATCH_SIZE,
                "bf16": speed.train_dtype == "bfloat16",
                "save_steps": 0,
            },
            evaluate={
                "new": [str(held_out)],
                "probes": str(_write_probes(probes, output / "data" / "probes.jsonl")),
                "sequence_length": BLOCK_TOKENS,
                "limit": training.blocks,
            },
            arms=list(_ARMS),
            seeds=[seed],
            diagnosis=report.settings.to_dict(),
        ),
        folder.path,
    )
    if trial.failures:
        name, cause = next(iter(trial.failures.items()))
        raise LayerTracerError(f"The run {name} failed: {cause.rstrip('.')}. Its log: {folder.unit(name).log}.")
    # The report on top is that of the run with the plan; each run's own lies in its folder.
    report = _named(LayerTracerReport.load(folder.unit(f"{_ARMS[0]['strategy']}-seed{seed}").training))
    report.save(output)
    say(
        f"Done: {look.name} on {report.probes.count} probes; {_amount(training)}. It took {(clock() - began) / 60:.1f} "
        f"min of {minutes:g}, and {(_cpu_seconds() - cpu) / 60:.1f} CPU-minutes."
    )
    return DemoResult(report, trial)


def measure_speed(model: Path, clock: Callable[[], float]) -> Speed:
    """Times the demo's first steps, in a process that starts like those to come.

    Args:
        model (`Path`): Folder of the model.
        clock (`Callable`): The time in seconds.

    Returns:
        [`Speed`]: How fast the machine is.

    Raises:
        LayerTracerError: The model cannot be run.
    """
    began = clock()
    done = subprocess.run(
        [sys.executable, "-m", f"{__package__}.measure", str(model)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "it printed nothing")
        raise LayerTracerError(f"The demo's model cannot be run: {one_line(last, 300)}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Speed(start=max(0.0, clock() - began - found.pop("inside")), **found)


def _diagnosed(model: Path, probes: list[Probe], look: Look, speed: Speed, seed: int) -> LayerTracerReport:
    loaded, tokenizer = load_model(str(model), dtype=speed.ask_dtype)
    settings = DiagnosisConfig(perturbation=look.perturbation, repeats=look.repeats, diagnosis_seed=seed)
    return _named(diagnose(loaded, probes, tokenizer=tokenizer, config=settings))


def _named(report: LayerTracerReport) -> LayerTracerReport:
    """A reader of the report wants to find the model; the weights are the packaged ones, which it must say."""
    report.model.id = MODEL_ID
    if NOTE not in report.notes:
        report.notes.append(NOTE)
    return report


def _write_probes(probes: list[Probe], path: Path) -> Path:
    rows = [{"prompt": probe.prompt, "target": probe.target, "task": probe.task} for probe in probes]
    write_atomically(path, "".join(f"{json.dumps(row)}\n" for row in rows).encode())
    return path


def _intention(speed: Speed, look: Look, training: Training, minutes: float, left: float) -> str:
    diagnosis, rest = look.seconds(speed), training_seconds(speed, look, training)
    said = (
        f"Within {minutes:g} min: {look.name} on {look.probes} probes in {speed.ask_dtype} (about {diagnosis / 60:.1f} "
        f"min), then {_amount(training)}, computed in {speed.train_dtype} (about {rest / 60:.1f} min)."
    )
    if diagnosis + rest <= left:
        return said
    return f"{said} That is the least that makes sense; on this machine, as busy as it is, it takes longer."


def _amount(training: Training) -> str:
    return (
        f"{training.steps} steps of training ({training.tokens:,} tokens) with the deep half frozen and in full, and "
        f"{training.blocks} held-out blocks of text to compare on"
    )


def _cpu_seconds() -> float:
    used = psutil.Process().cpu_times()
    return used.user + used.system + used.children_user + used.children_system
