"""`layertracer trials`, as a shell calls it."""

from __future__ import annotations

import pytest
import yaml


def test_init_writes_a_config_and_never_over_another_file(run, tmp_path):
    path = tmp_path / "trials.yaml"
    status, out, _ = run("trials", "init", path, "--model", "alice/model")
    assert status == 0
    assert str(path) in out.replace("\n", "")
    assert yaml.safe_load(path.read_text())["model"] == "alice/model"
    status, _, err = run("trials", "init", path)
    assert status == 1
    assert "exists already" in err


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("model: m\narms: [{strategy: sideways}]\ntrain: {files: [a], tokens: 9999}", "arms[0].strategy: Unknown strategy"),
        ("model: m\narms: [{strategy: full}]\ntrain: {files: [a], tokens: 9999}", "train.files: there is no file a"),
        ("model: m\narms: [{strategy: full}]\ntrain: {files: [a], tokens: 9}", "train.tokens: a budget of 9 is below one"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_nothing_is_left(run, tmp_path, text, line):
    path = tmp_path / "trials.yaml"
    path.write_text(text)
    status, _, err = run("trials", "run", path, "--out", tmp_path / "out")
    assert status == 1
    assert len(err.strip().splitlines()) == 1
    assert line in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["status", "show"])
def test_a_folder_without_a_trial_is_one_line(run, tmp_path, command):
    status, _, err = run("trials", command, tmp_path)
    assert status == 1
    assert "holds no trial" in err


def test_options_that_do_not_fit_together_are_refused(run, tmp_path):
    path = tmp_path / "trials.yaml"
    run("trials", "init", path)
    assert "--halving" in run("trials", "run", path, "--total-tokens", 5)[2]
