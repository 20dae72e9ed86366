"""Arms that train on their own files, such as a selection of the corpus."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hf_layertracer import LayerTracerError, TrialsConfig, run_trials
from hf_layertracer.trials.folder import TrialFolder


@pytest.fixture
def selected(tmp_path: Path) -> Path:
    """What a selection leaves: JSON lines, with scores that nobody reads here."""
    path = tmp_path / "selected.jsonl"
    path.write_text('{"text": "' + "A rose is a flower. " * 10 + '", "score": 0.5, "index": 0}\n', encoding="utf-8")
    return path


def test_an_arm_trains_on_its_own_files(make_config, in_this_process, tmp_path, selected, tiny_tokenizer):
    arms = [{"strategy": "full"}, {"name": "on-selected", "strategy": "full", "files": [str(selected)]}]
    result = run_trials(make_config(arms=arms), tmp_path / "out")
    metrics = {row["arm"]: row["metrics"]["new/bits_per_byte"] for row in result.rows}
    assert len(set(metrics.values())) == 3
    # The same budget, and the text that was named.
    assert {row["cost"]["tokens"] for row in result.rows if row["arm"] != "base"} == {6 * 4 * 16}
    (own,) = (tmp_path / "out" / "data").glob("blocks-*.npy")
    assert tiny_tokenizer.decode(np.load(own)[0, 1:].tolist()).startswith("A rose is a flower.")
    assert TrialFolder(tmp_path / "out").blocks.is_file()
    assert any(note.startswith("The files of on-selected hold") for note in result.notes)


def test_files_that_changed_are_not_mixed_with_old_results(make_config, in_this_process, tmp_path, selected):
    config = make_config(arms=[{"strategy": "full", "files": [str(selected)]}])
    run_trials(config, tmp_path / "out")
    selected.write_text('{"text": "' + "Paris is the capital of France. " * 40 + '"}\n', encoding="utf-8")
    with pytest.raises(LayerTracerError, match="holds results of another arm of that name: files: "):
        run_trials(config, tmp_path / "out")


def test_files_that_are_not_there_are_noticed_before_anything_runs(make_config, in_this_process, tmp_path):
    config = make_config(arms=[{"name": "mine", "strategy": "full", "files": ["nowhere.jsonl"]}])
    with pytest.raises(LayerTracerError, match=r"arms: mine: files: there is no file nowhere\.jsonl"):
        run_trials(config, tmp_path / "out")
    assert in_this_process == []


def test_relative_files_of_an_arm_start_at_the_configs_folder(tmp_path, selected):
    path = tmp_path / "trials.yaml"
    path.write_text(
        "model: m\ntrain: {files: [new.txt], tokens: 99999}\narms: [{strategy: full, files: [selected.jsonl]}]\n",
        encoding="utf-8",
    )
    assert TrialsConfig.from_file(path).arms[0].files == [str(selected)]
