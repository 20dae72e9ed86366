"""The main job as `make demo` runs it, on a tiny model: a real measurement, a real trial, real processes."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from hf_layertracer import LayerTracerError, LayerTracerReport
from hf_layertracer.demo import run as demo_run
from hf_layertracer.demo.budget import Speed
from hf_layertracer.trials.folder import TrialFolder, UnitFolder
from hf_layertracer.trials.prepare import prepare
from hf_layertracer.trials.unit import run_unit


SPEED = Speed(0.1, 0.01, 0.01, 0.005, 0.001, 0.0001, "float32", "bfloat16")
TEXTS = [f"Module {number} says that the capital city of Italy is Rome. " * 60 for number in range(10)]


@pytest.fixture
def tiny(tmp_path: Path, tiny_llama, tiny_tokenizer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo with a tiny model and few texts, its runs in this process."""
    folder = tmp_path / "model"
    tiny_llama(max_position_embeddings=256).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    monkeypatch.setattr(demo_run, "demo_model", lambda: folder)
    monkeypatch.setattr(demo_run, "standard_library_docs", lambda: TEXTS)
    monkeypatch.setattr(demo_run, "measure_speed", lambda model, clock: SPEED)
    monkeypatch.setattr("hf_layertracer.trials.run.run_module", _run_here)
    # Pictures take longer than the training; they have their own tests.
    monkeypatch.setattr("hf_layertracer.report.figure.draw_report", lambda report: Figure((1, 1)))
    return folder


def _run_here(module: str, folder: Path, *_: object, **__: object) -> None:
    if module.endswith(".prepare"):
        prepare(TrialFolder(folder))
    else:
        run_unit(UnitFolder(folder))


def _clock(*seconds: float) -> Iterator[float]:
    yield from seconds
    while True:
        yield seconds[-1]


def test_the_demo_compares_both_strategies_says_what_it_does_and_leaves_its_files(tiny: Path, tmp_path: Path):
    said: list[str] = []
    times = _clock(0, 0, 59)  # the diagnosis took nearly all of the minute
    result = demo_run.run_demo(tmp_path / "out", minutes=1, say=said.append, clock=lambda: next(times))

    assert "Within 1 min: an exact diagnosis on 144 probes in bfloat16" in said[1]
    assert "8 steps of training (2,048 tokens)" in said[1]
    assert said[2].startswith("With the time that is left: ")
    assert said[-1].startswith("Done: an exact diagnosis on 144 probes; ")
    assert "It took 1.0 min of 1" in said[-1]

    trial = result.trial
    assert trial.arm_names == ["freeze-deep", "full"]
    untouched, frozen, full = (trial.runs_of(name)[0] for name in ("base", "freeze-deep", "full"))
    for run in (frozen, full):
        assert run["evaluation"]["metrics"]["new/perplexity"] != untouched["evaluation"]["metrics"]["new/perplexity"]
    assert frozen["cost"]["trainable_parameters"] < full["cost"]["trainable_parameters"]
    assert json.loads((tmp_path / "out" / "trial" / "results.json").read_text()) == trial.to_dict()

    report = LayerTracerReport.load(tmp_path / "out")
    assert report.model.id == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert report.plan.frozen_layers == [2, 3]
    assert report.training.steps == trial.config["train"]["tokens"] // 256
    assert any("GGUF" in note for note in report.notes), "the weights are not those of the Hub"
    assert (tmp_path / "out" / "layertracer_report.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_fails_is_one_error_with_its_log(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fails(module: str, folder: Path, log: Path, failure: Path, **_: object) -> str | None:
        if module.endswith(".prepare"):
            return _run_here(module, folder)
        failure.write_text('{"cause": "no memory left"}')
        return "no memory left"

    monkeypatch.setattr("hf_layertracer.trials.run.run_module", fails)
    monkeypatch.setattr(demo_run, "measure_speed", lambda model, clock: replace(SPEED, alone=1.0))
    with pytest.raises(LayerTracerError, match=r"no memory left\. Its log: .*log\.txt"):
        demo_run.run_demo(tmp_path / "out", minutes=1, say=lambda line: None)


def test_the_speed_of_this_machine_is_measured_without_any_of_the_extras(tiny: Path, tmp_path: Path, monkeypatch):
    monkeypatch.undo()
    names = ("datasets", "peft", "evaluate", "lm_eval", "gradio", "plotly", "gguf", "pandas")
    (tmp_path / "sitecustomize.py").write_text(f"import sys; sys.modules.update(dict.fromkeys({names}))")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    speed = demo_run.measure_speed(tiny, time.monotonic)
    assert min(speed.start, speed.train, speed.update, speed.read, speed.alone) > 0
    assert {speed.train_dtype, speed.ask_dtype} <= {"float32", "bfloat16"}


def test_a_model_that_cannot_be_run_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    failed = subprocess.CompletedProcess([], 1, "", "Traceback ...\nOSError: no such model\n\n")
    monkeypatch.setattr(demo_run.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(LayerTracerError, match="The demo's model cannot be run: OSError: no such model"):
        demo_run.measure_speed(tmp_path, time.monotonic)
