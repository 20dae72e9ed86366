"""The command line, as a shell calls it: arguments in, text and exit status out."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from support.models import tiny_model

import hf_layertracer
from hf_layertracer import DiagnosisConfig, LayerTracerError, LayerTracerReport
from hf_layertracer.planning import STRATEGIES


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def model(tmp_path: Path, tiny_llama, tiny_tokenizer) -> Path:
    folder = tmp_path / "tiny"
    tiny_llama().save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def probes(tmp_path: Path) -> Path:
    path = tmp_path / "probes.jsonl"
    path.write_text('{"prompt": "the cat sat on", "target": " the"}\n{"prompt": "the dog", "target": " ran"}\n')
    return path


def test_a_quick_look_skips_layers_on_few_probes(run: Run, model: Path, tmp_path: Path):
    probes = tmp_path / "many.jsonl"
    probes.write_text("".join(f'{{"prompt": "the cat {n} sat on", "target": " the"}}\n' for n in range(40)))
    status, _, _ = run("diagnose", model, "--probes", probes, "--out", tmp_path / "out", "--quick")
    assert status == 0
    report = json.loads((tmp_path / "out" / "layertracer_report.json").read_text())
    assert report["probes"]["count"] == 24
    assert list(report["diagnoses"][0]["sensitivities"]) == ["skip"]


def test_diagnose_leaves_report_picture_and_card(run: Run, model: Path, probes: Path, tmp_path: Path):
    status, out, _ = run("diagnose", model, "--probes", probes, "--out", tmp_path / "out", "--repeats", 2)
    assert status == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "layertracer_report.json",
        "layertracer_report.png",
        "README.md",
    }
    report = LayerTracerReport.load(tmp_path / "out")
    assert report.probes.count == 2
    assert report.model.id == "tiny"
    assert f"highest at layer {report.sensitivity.vulnerable_layer}" in re.sub(r"[│\s]+", " ", out)


def test_nothing_in_a_report_names_this_machine(run: Run, model: Path, probes: Path, tmp_path: Path):
    run("diagnose", model, "--probes", probes, "--out", tmp_path / "out", "--repeats", 1)
    for file in (tmp_path / "out").iterdir():
        assert str(tmp_path).encode() not in file.read_bytes()
        assert str(Path.home()).encode() not in file.read_bytes()


def test_plan_of_a_model_counts_without_loading_weights(run: Run, model: Path):
    (model / "model.safetensors").unlink()
    status, out, _ = run("plan", model, "--strategy", "freeze-shallow")
    assert status == 0
    assert re.search(r"trained layers\s+│\s+2-3", out)


def test_plan_of_a_report_uses_its_measurements(run: Run, model: Path, probes: Path, tmp_path: Path):
    run("diagnose", model, "--probes", probes, "--out", tmp_path / "out", "--repeats", 2)
    status, _, _ = run("plan", tmp_path / "out", "--strategy", "sensitivity", "--out", tmp_path / "plan.json")
    made = json.loads((tmp_path / "plan.json").read_text())
    scores = LayerTracerReport.load(tmp_path / "out").sensitivity.mean
    assert status == 0
    assert made["trained_layers"] == sorted(sorted(range(4), key=lambda layer: -scores[layer])[:2])


def test_plan_exports_for_other_trainers(run: Run, model: Path):
    _, axolotl, _ = run("plan", model, "--export", "axolotl")
    _, factory, _ = run("plan", model, "--export", "llama-factory")
    _, names, _ = run("plan", model, "--export", "names")
    patterns = yaml.safe_load(axolotl)["unfrozen_parameters"]
    trained = names.splitlines()
    assert yaml.safe_load(factory)["freeze_trainable_layers"] == -2
    assert "model.layers.1.mlp.up_proj.weight" in trained
    assert not any(name.startswith("model.layers.2.") for name in trained)
    assert all(any(re.match(pattern, name) for pattern in patterns) for name in trained)


def test_a_limit_on_memory_is_what_an_estimate_has_to_fit(run: Run, model: Path):
    options = ("--max-memory", "1GB", "--sequence-length", 8, "--batch-size", 1)
    _, out, _ = run("plan", model, "--estimate", *options)
    assert re.search(r"fits .*\(1 GiB\)\s+│\s+yes", out)


def test_a_limit_on_memory_counts_the_activations_of_the_run(run: Run, model: Path):
    estimated = json.loads(run("plan", model, "--estimate", "--json", "--batch-size", 4, "--sequence-length", 64)[1])
    options = ("--max-memory", estimated["total_bytes"], "--batch-size", 4)
    status, out, _ = run("plan", model, *options, "--sequence-length", 4)
    assert (status, "trained layers" in out) == (0, True)
    status, _, error = run("plan", model, *options, "--sequence-length", 64)
    assert status != 0
    assert "4 x 64 tokens" in error.replace("\n", " ")


def test_weight_snr_reads_the_weights_of_a_model(run: Run, model: Path):
    status, out, _ = run("plan", model, "--strategy", "weight-snr")
    assert status == 0
    assert "trained layers" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["diagnose", "{tmp}/nothing"], "There is no such folder"),
        (["diagnose", "{model}", "--probes", "{tmp}/no.jsonl"], "No such probe file"),
        (["diagnose", "{model}", "--probes", "{tmp}/empty.jsonl"], "No probe in"),
        (["diagnose", "{model}", "--probes", "{tmp}/broken.jsonl"], "line 2 is not JSON"),
        (["diagnose", "{model}", "--mask-ratio", "1.5"], "mask_ratio must lie above 0 and at most at 1"),
        (["diagnose", "{model}", "--perturbation", "kick"], "perturbation must be one of mask, "),
        (["plan", "{model}", "--strategy", "wishful"], "freeze-deep, freeze-shallow, full"),
        (["plan", "{model}", "--freeze-ratio", "1"], "freeze_ratio must lie between 0 and 1"),
        (["plan", "{model}", "--strategy", "explicit", "--train-layers", "7"], "Layer 7 does not exist"),
        (["plan", "{model}", "--strategy", "explicit", "--train-layers", "nothing_like_it"], "matches no parameter"),
        (["plan", "{model}", "--strategy", "sensitivity"], "needs measurements: run layertracer diagnose"),
        (["plan", "{model}", "--strategy", "budget", "--max-memory", "1GB"], "needs measurements: run layertracer"),
        (["plan", "{model}", "--strategy", "full", "--freeze-ratio", "0.5"], "'full' has no option freeze_ratio"),
        (["plan", "{model}", "--plan", "p.json", "--strategy", "freeze-deep"], "leave --strategy and its options out"),
        (["diagnose", "{model}", "--dtype", "float8_e4m3fn"], "dtype must be one of auto, float32"),
        (["view", "{tmp}/broken.json", "--no-browser"], "broken.json is not a LayerTracer report"),
        (["plan", "{model}", "--export", "excel"], "Unknown export format"),
        (["plan", "{tmp}/nothing"], "There is no such folder"),
    ],
)
def test_bad_input_is_one_line_on_standard_error_and_status_1(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "broken.jsonl").write_text('{"prompt": "a b", "target": " c"}\n{"prompt": \n')
    (tmp_path / "broken.json").write_text('{"schema_version": 2, "created":')
    status, out, err = run(*(a.format(model=model, tmp=tmp_path) for a in arguments))
    assert status == 1
    assert message in err
    assert err.startswith("Error: ")
    assert len(err.strip().splitlines()) == 1
    assert out == ""


def test_a_report_of_a_newer_version_is_refused_and_not_taken_for_a_model(run: Run, tmp_path: Path):
    (tmp_path / "layertracer_report.json").write_text('{"schema_version": 99}')
    status, _, err = run("plan", tmp_path)
    assert status == 1
    assert "schema version 99" in err


@pytest.mark.parametrize("hidden", [False, True])
def test_an_interruption_during_imports_is_one_line_and_status_130(hidden: bool):
    # Libraries of C turn an interruption while they are imported into an ImportError.
    code = f"""
import os, signal, sys
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt:
                if {hidden}: raise ImportError("cannot import datetime")
                raise
sys.meta_path.insert(0, Slow())
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = ["layertracer", "diagnose", "some/model"]
from hf_layertracer.cli.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")


@pytest.mark.parametrize("command", [[], ["diagnose"], ["plan"], ["demo"]])
def test_help_teaches(run: Run, command: list[str]):
    _, out, _ = run(*command, "--help")
    assert "Usage" in out
    assert len(out) > 300


@pytest.mark.parametrize("command", [[], ["diagnose"], ["plan"], ["list"], ["hybrid"]])
def test_help_has_a_short_form(run: Run, command: list[str]):
    assert run(*command, "-h") == run(*command, "--help")


def test_the_version_is_the_packages(run: Run):
    assert run("--version") == (0, f"hf_layertracer {hf_layertracer.__version__}\n", "")


def test_brackets_in_help_are_text(run: Run):
    _, out, _ = run("view", "--help")
    assert 'pip install "hf_layertracer[viewer]"' in " ".join(out.split())


def test_help_shows_choices_and_defaults_of_the_settings(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "160")
    _, out, _ = run("diagnose", "--help")
    for field in fields(DiagnosisConfig):
        line = next(line for line in out.splitlines() if f"--{field.name.replace('_', '-')} " in line)
        assert field.metadata["help"].split(",")[0].rstrip(".") in line
        if "choices" in field.metadata:
            assert f"[{'|'.join(field.metadata['choices'])}]" in line
        if field.default is not None and not isinstance(field.default, bool):
            assert f"[default: {field.default}]" in line


def test_every_strategy_is_described_where_it_is_asked_for(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "160")
    out = " ".join(run("plan", "--help")[1].split())
    for strategy in STRATEGIES.values():
        assert f"{strategy.name} {strategy.summary}" in out


def test_help_waits_for_no_heavy_library():
    # In its own process: this one has imported everything already.
    code = (
        "import sys; from hf_layertracer.cli.app import build_command; build_command();"
        "print([name for name in ('torch', 'transformers', 'matplotlib', 'gradio', 'datasets') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- order of work ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--probes", "{tmp}/broken.jsonl"], "broken.jsonl, line 1 is not JSON"),
        (["--out", "{tmp}/broken.jsonl"], "Nothing can be written to"),
        (["--out", "{tmp}/broken.jsonl/deeper"], "Nothing can be written to"),
        (["--diagnosis-seed", "-1"], "diagnosis_seed must be"),
        (["--repeats", "1000000000000"], "repeats must be at most 100000: each of them runs every probe once more"),
        (["--dtype", "foo", "--probes", "{tmp}/broken.jsonl"], "dtype must be one of"),
        (["--shots", "-1"], "shots must be a whole number"),
    ],
)
def test_what_can_be_checked_without_the_model_is_said_before_it_is_loaded(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
):
    (tmp_path / "broken.jsonl").write_text("{")

    def load(*_: object, **__: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("hf_layertracer.modeling.loading.load_model", load)
    status, _, err = run("diagnose", str(model), *(a.format(tmp=tmp_path) for a in arguments))
    assert status == 1
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_measurements_survive_a_report_that_cannot_be_saved(
    run: Run, model: Path, probes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise LayerTracerError("Could not write it: No space left on device.")

    monkeypatch.setattr(LayerTracerReport, "save", full)
    status, _, err = run("diagnose", str(model), "--probes", str(probes), "--out", str(tmp_path / "out"))
    assert status == 1
    assert "No space left on device. The measurements are kept:" in err
    kept = Path(err.split("are kept: ")[1].strip().rstrip("."))
    assert LayerTracerReport.load(kept).is_measured


def test_notes_on_probes_reach_the_terminal_and_the_card(run: Run, model: Path, tmp_path: Path):
    row = '{"prompt": "Rome is", "target": "the"}\n'
    (tmp_path / "p.jsonl").write_text(row * 3)
    status, out, _ = run("diagnose", str(model), "--probes", str(tmp_path / "p.jsonl"), "--out", str(tmp_path / "out"))
    assert status == 0
    card = (tmp_path / "out" / "README.md").read_text()
    for text in (" ".join(out.split()), card):
        assert "2 of 3 probes are copies" in text
        assert "follows a letter without a space" in text


def test_a_plan_of_a_model_with_experts_says_that_all_are_counted(run: Run, model: Path, tmp_path: Path):
    tiny_model("Mixtral").save_pretrained(tmp_path / "experts")
    assert "FLOPs per token, all experts" in run("plan", tmp_path / "experts")[1]
    assert "experts" not in run("plan", model)[1]
