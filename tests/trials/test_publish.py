"""A trial on the Hub: rows that load, a card with the tables, and no path of this machine."""

from __future__ import annotations

import json

import pytest
from datasets import load_dataset

from hf_layertracer.errors import HubError
from hf_layertracer.trials import TrialsResult
from hf_layertracer.trials.publish import COLUMNS, push_trials


REPO = "alice/trials"


def test_a_row_for_each_run_and_metric_is_loaded_and_no_path_leaves(hub, make_config, finished, world):
    own = {"name": "own", "strategy": "full", "files": [str(world / "new.txt")]}
    lora = {"strategy": "lora", "target_modules": r".*\.mlp\.(up|down)_proj"}
    folder = finished(make_config(arms=[own, lora]))
    result = TrialsResult.load(folder)
    # Settings that are a path by mistake, and a file below a folder that is not named in full.
    result.config["diagnosis"]["layers_path"] = f"{world}/layers"
    result.arms[0]["arm"]["files"].append("private/clients.txt")
    push_trials(result, REPO)
    assert len(hub.repo(REPO, "dataset").commits()) == 1
    loaded = load_dataset(REPO, split="train", download_mode="force_redownload")
    assert loaded.column_names == list(COLUMNS)
    values = {(row["arm"], row["seed"], row["metric"]): row["value"] for row in loaded}
    for row in result.rows:
        for metric, value in row["metrics"].items():
            assert values[row["arm"], row["seed"], metric] == pytest.approx(value)
    assert len(values) == sum(len(row["metrics"]) for row in result.rows)
    assert set(loaded["model"]) == {"model"}

    files = hub.repo(REPO, "dataset").files
    assert {"README.md", "results.json", "results.md", "learned_forgotten.png", "losses.png"} <= set(files)
    for name, content in files.items():
        assert str(world).encode() not in content, name
        assert str(folder).encode() not in content, name
        assert b"private" not in content, name
    published = json.loads(files["results.json"])
    assert published["config"]["arms"][0]["files"] == ["new.txt"]
    assert published["arms"][0]["arm"]["files"] == ["new.txt", "clients.txt"]
    assert published["arms"][1]["arm"]["target_modules"] == lora["target_modules"]
    assert published["rows"][2]["options"] == {"target_modules": lora["target_modules"]}
    card = files["README.md"].decode()
    assert "| base |" in card
    assert f'load_dataset("{REPO}"' in card


def test_a_push_without_permission_is_one_line_and_advises_nothing_that_is_not_there(hub, make_config, finished):
    result = TrialsResult.load(finished(make_config(arms=[{"strategy": "full"}])))
    with pytest.raises(HubError, match="write permission") as raised:
        push_trials(result, "bob/trials")
    assert "\n" not in str(raised.value)
    assert "create_pr" not in str(raised.value)


def test_the_card_shows_the_pictures_that_there_are(hub, make_config, finished):
    # Without old text, nothing was forgotten that could be shown against what was learned.
    push_trials(TrialsResult.load(finished(make_config(arms=[{"strategy": "full"}], evaluate={"old": []}))), REPO)
    files = hub.repo(REPO, "dataset").files
    assert "learned_forgotten.png" not in files
    assert "learned_forgotten.png" not in files["README.md"].decode()
    assert "losses.png" in files["README.md"].decode()
