"""The examples, each run as a user runs it, on a tiny setting."""

from __future__ import annotations

import copy
import json
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hf_layertracer import LayerTracerReport


EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def setting(tmp_path: Path, tiny_llama, tiny_tokenizer) -> Path:
    tiny_llama().save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    paragraphs = [f"the cat number {index} sat on the mat and the dog ran." for index in range(60)]
    (tmp_path / "train.txt").write_text("\n\n".join(paragraphs))
    return tmp_path


def run_script(name: str, *arguments: object) -> str:
    """As a user runs it."""
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-2000:]
    return finished.stdout


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`run_here(name, *arguments)`: the same in this process, which has imported everything already."""

    def run(name: str, *arguments: object) -> str:
        monkeypatch.setattr("sys.argv", [str(EXAMPLES / name), *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("script", ["run_clm.py", "run_clm_layertracer.py"])
def test_the_training_scripts_train_and_evaluate(script: str, setting: Path, run_here):
    run = run_script if script == "run_clm_layertracer.py" else run_here
    out = run(
        script,
        *("--model_name_or_path", setting / "model", "--train_file", setting / "train.txt"),
        *("--validation_file", setting / "train.txt", "--block_size", 16, "--output_dir", setting / "out"),
        *("--max_steps", 2, "--report_to", "none", "--use_cpu", "True"),
    )
    assert "eval_loss" in out
    assert (setting / "out" / "model.safetensors").is_file()
    assert (setting / "out" / "layertracer_report.json").is_file() == (script == "run_clm_layertracer.py")


def test_the_swap_is_one_line_and_its_import():
    plain = (EXAMPLES / "run_clm.py").read_text().splitlines()
    swapped = (EXAMPLES / "run_clm_layertracer.py").read_text().splitlines()
    removed = [line for line in plain if line not in swapped and '"""' not in line and ".py" not in line]
    added = [line for line in swapped if line not in plain and '"""' not in line and ".py" not in line]
    assert removed == ["    Trainer,", "    trainer = Trainer("]
    assert added == ["from hf_layertracer import LayerTracerTrainer", "    trainer = LayerTracerTrainer("]


@pytest.mark.usefixtures("real_picture")
def test_the_notebook_script_diagnoses_and_plots(setting: Path, run_here):
    out = run_here("diagnose_and_plot.py", setting / "model", setting / "report")
    assert "Vulnerable layer:" in out
    assert "freeze-deep: trains [0, 1]" in out
    assert (setting / "report" / "layertracer_report.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_study_of_what_sensitivity_predicts_goes_on_where_it_was_stopped(setting: Path):
    arguments = (setting / "model", "--out", setting / "study.json", "--text", setting / "train.txt")
    sizes = ("--tokens", 512, "--probes", 8, "--repeats", 1)
    out = run_script("what_sensitivity_predicts.py", *arguments, *sizes)
    assert re.search(r"^\| skip \| -?\d\.\d\d \(-?\d\.\d\d to -?\d\.\d\d\) \| -?\d\.\d\d \|$", out, re.MULTILINE)
    results = json.loads((setting / "study.json").read_text())
    assert runpy.run_path(str(EXAMPLES / "what_sensitivity_predicts.py"))["table"](results) in out
    whole = copy.deepcopy(results)
    del results["model"]["losses"]["1"], results["model"]["diagnoses"]["mask 0.5"]
    (setting / "study.json").write_text(json.dumps(results))
    again = run_script("what_sensitivity_predicts.py", *arguments, *sizes)
    assert "without layer 1:" in again
    assert "without layer 0:" not in again
    found = json.loads((setting / "study.json").read_text())
    assert found["model"]["losses"] == {name: pytest.approx(v) for name, v in whole["model"]["losses"].items()}
    assert found["model"]["diagnoses"].keys() == whole["model"]["diagnoses"].keys()


def test_the_page_of_what_sensitivity_predicts_shows_the_results_that_lie_beside_the_script():
    results = json.loads((EXAMPLES / "what_sensitivity_predicts.json").read_text())
    page = (EXAMPLES.parent / "docs" / "guides" / "what-sensitivity-predicts.md").read_text()
    shown = runpy.run_path(str(EXAMPLES / "what_sensitivity_predicts.py"))["table"](results)
    assert shown.strip() in page


@pytest.mark.slow
def test_the_case_study_of_hybrids_runs_goes_on_and_becomes_a_page(setting: Path, make_model):
    make_model("Llama", num_hidden_layers=4).save_pretrained(setting / "model")
    study = ["--model", setting / "model", "--heal", setting / "train.txt", "--held-out", setting / "train.txt"]
    study += ["--other", setting / "train.txt", "--out", setting / "study", "--counts", 2, "--seeds", 0]
    study += ["--steps", 1, "--distill-steps", 1, "--length", 16, "--batch-size", 2, "--blocks", 1, "--max-probes", 2]
    run_script("hybrid_case_study.py", *study)
    units = sorted((setting / "study" / "units").iterdir())
    assert len(units) == 1 + 5 + 5 * 2 + 3
    before = {unit: unit.stat().st_mtime_ns for unit in units}
    units[3].unlink()
    run_script("hybrid_case_study.py", *study)  # only what is missing runs again
    assert [unit for unit in units if unit.stat().st_mtime_ns != before[unit]] == [units[3]]

    run_script("hybrid_case_study_page.py", setting / "study", "--page", setting / "page.md")
    page = (setting / "page.md").read_text()
    assert "after stage 2" in page
    assert "2, mixer sensitivity" in page


def test_the_reports_of_the_space_are_made_again(setting: Path, run_here):
    sizes = ("--probes", 4, "--run-probes", 4, "--steps", 2, "--diagnose-steps", 1)
    run_here("space_examples.py", "--model", setting / "model", "--out", setting / "reports", *sizes)
    reports = {folder.name: LayerTracerReport.load(folder) for folder in sorted((setting / "reports").iterdir())}
    shipped = EXAMPLES.parent / "spaces" / "layertracer-viewer" / "examples"
    assert reports.keys() < {folder.name for folder in shipped.iterdir()}
    assert {report.model.id for report in reports.values()} == {"HuggingFaceTB/SmolLM2-135M-Instruct"}
    steps = {name: [diagnosis.step for diagnosis in report.diagnoses] for name, report in reports.items()}
    assert steps == {"smollm2-135m": [0], "smollm2-135m-freeze-deep": [0, 1, 2], "smollm2-135m-full": [0, 1, 2]}
