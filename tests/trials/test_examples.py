"""The committed configs are valid, and the script that holds text out loses none of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hf_layertracer import TrialsConfig


FOLDER = Path(__file__).parents[2] / "examples" / "trials"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_config_is_read_and_named_in_the_readme(path):
    config = TrialsConfig.from_file(path)
    assert config.match == "trainable_parameters"
    assert config.train.files[0] not in config.evaluate.new
    assert path.name in (FOLDER / "README.md").read_text()


def test_held_out_text_and_training_text_are_the_whole(tmp_path):
    text = "".join(f"Zeile {number} – 中国\n" for number in range(1000))
    (tmp_path / "all.txt").write_text(text, encoding="utf-8")
    subprocess.run([sys.executable, FOLDER / "hold_out.py", tmp_path / "all.txt"], check=True)
    train, held_out = ((tmp_path / f"all.{part}.txt").read_text(encoding="utf-8") for part in ("train", "held_out"))
    assert train + held_out == text
    assert 0.03 < len(held_out) / len(text) < 0.07
