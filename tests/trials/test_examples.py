"""The committed configs are valid, rates are not chosen on the texts of the trials, and no held-out text is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hf_layertracer import TrialsConfig, run_trials


FOLDER = Path(__file__).parents[2] / "examples" / "trials"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_config_is_read_and_named_in_the_readme(path):
    config = TrialsConfig.from_file(path)
    assert config.match == "trainable_parameters"
    part = "validation" if "learning_rates" in path.name else "test"
    assert config.train.files[0].endswith(".train.txt")
    assert all(text.endswith(f".{part}.txt") for text in [*config.evaluate.new, *config.evaluate.old])
    assert path.name in (FOLDER / "README.md").read_text()


def test_the_page_answers_at_equal_tokens_and_at_equal_arithmetic(make_config, in_this_process, tmp_path):
    names = ("trial", "trial_equal_flops")
    for name, tokens in zip(names, (320, 448), strict=True):
        arms = [{"strategy": "full"}, {"strategy": "freeze-deep"}][name != "trial" :]
        run_trials(make_config(arms=arms, train={"tokens": tokens}, objective={}), tmp_path / name)
    command = [sys.executable, FOLDER / "page.py", tmp_path / "trial"]
    page = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = {line.split(" | ")[0]: line.split(" | ")[1:] for line in page.splitlines() if line.startswith("| Does")}
    assert len(rows) == 2
    answers = [cells[0] for cells in rows.values()]
    assert answers[0] != answers[1]
    assert not any("not measured" in cell for cells in rows.values() for cell in cells)


def test_the_page_shows_the_best_rate_of_each_arm_in_bold(make_config, in_this_process, tmp_path):
    rates = (1e-30, 1e-2)
    sweep = [{"name": f"full-{rate}", "strategy": "full", "learning_rate": rate} for rate in rates]
    for name, arms in (("trial", [{"strategy": "full"}]), ("trial_learning_rates", sweep)):
        run_trials(make_config(arms=arms, train={"tokens": 320}, objective={}), tmp_path / name)
    command = [sys.executable, FOLDER / "page.py", tmp_path / "trial"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    head = lines.index("| arm | 1e-30 | 0.01 |")
    cells = [cell.strip() for cell in lines[head + 2].split("|")[1:-1]]
    assert cells[0] == "full"
    values = [float(cell.strip("*")) for cell in cells[1:]]
    assert values[0] == 0 != values[1]
    assert [cell.startswith("**") for cell in cells[1:]] == [values[0] > values[1], values[1] > values[0]]


def test_training_validation_and_test_text_are_the_whole(tmp_path):
    text = "".join(f"Zeile {number} – 中国\n" for number in range(1000))
    (tmp_path / "all.txt").write_text(text, encoding="utf-8")
    subprocess.run([sys.executable, FOLDER / "hold_out.py", tmp_path / "all.txt"], check=True)
    parts = {
        part: (tmp_path / f"all.{part}.txt").read_text(encoding="utf-8") for part in ("train", "validation", "test")
    }
    assert "".join(parts.values()) == text
    for part in ("validation", "test"):
        assert 0.04 < len(parts[part]) / len(text) < 0.06
