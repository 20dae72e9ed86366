"""The committed configs are valid, and the script that holds text out loses none of it."""

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
    assert config.train.files[0] not in config.evaluate.new
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


def test_held_out_text_and_training_text_are_the_whole(tmp_path):
    text = "".join(f"Zeile {number} – 中国\n" for number in range(1000))
    (tmp_path / "all.txt").write_text(text, encoding="utf-8")
    subprocess.run([sys.executable, FOLDER / "hold_out.py", tmp_path / "all.txt"], check=True)
    train, held_out = ((tmp_path / f"all.{part}.txt").read_text(encoding="utf-8") for part in ("train", "held_out"))
    assert train + held_out == text
    assert 0.03 < len(held_out) / len(text) < 0.07
