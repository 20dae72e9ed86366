"""Configs of trials: what is right is read, and each mistake is one line with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hf_layertracer import LayerTracerError, TrialsConfig
from hf_layertracer.trials.run import check_trials
from hf_layertracer.trials.template import config_template


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    for name in ("new.txt", "held.txt", "old.txt"):
        (tmp_path / name).write_text(f"some words of {name}")
    return {
        "model": "someone/model",
        "train": {"files": ["new.txt"], "sequence_length": 8, "tokens": 100, "batch_size": 2, "learning_rate": "1e-3"},
        "evaluate": {"new": ["held.txt"], "old": ["old.txt"]},
        "arms": [{"name": "all", "strategy": "full"}, {"strategy": "freeze-deep", "freeze_ratio": 0.25}],
        "seeds": [0, 1],
    }


@pytest.fixture
def written(tmp_path: Path):
    """`written(values)`: the path of a YAML file that holds them."""

    def write(values: Any) -> Path:
        path = tmp_path / "trials.yaml"
        path.write_text(values if isinstance(values, str) else yaml.safe_dump(values))
        return path

    return write


def test_a_config_is_read_and_its_paths_start_at_its_folder(values, written, tmp_path):
    config = TrialsConfig.from_file(written(values))
    assert config.train.files == [str(tmp_path / "new.txt")]
    assert config.evaluate.old == [str(tmp_path / "old.txt")]
    assert config.model == "someone/model"
    assert config.train.learning_rate == 1e-3
    assert config.train.steps == 6
    assert [arm.name for arm in config.arms] == ["all", "freeze-deep"]
    assert config.arms[1].options == {"freeze_ratio": 0.25}
    check_trials(config)


def test_a_config_survives_its_own_dump(values):
    config = TrialsConfig(**values)
    assert TrialsConfig(**config.model_dump()) == config


def test_the_template_is_a_valid_config(written):
    config = TrialsConfig.from_file(written(config_template("a/b")))
    assert config.model == "a/b"
    assert config.match == "trainable_parameters"
    assert config.train.tokens == 2_000_000


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"arms": [{"strategy": "freeze-sideways"}]}, r"arms\[0\]\.strategy: Unknown strategy 'freeze-sideways'"),
        ({"arms": [{"strategy": "full"}, {"strategy": "full"}]}, r"arms\[1\]\.name: arms\[0\] is called 'full' already"),
        ({"arms": [{"strategy": "full"}, {"name": "FULL", "strategy": "full"}]}, r"arms\[1\]\.name: arms\[0\]"),
        ({"arms": [{"name": "base", "strategy": "full"}]}, r"arms\[0\]\.name: 'base' is the untouched model"),
        ({"arms": [{"name": "a/b", "strategy": "full"}]}, r"arms\[0\]\.name: 'a/b' cannot name a folder"),
        ({"arms": [{"strategy": "full", "freeze_ratio": 0.5}]}, r"arms\[0\].*'full' has no option freeze_ratio"),
        ({"arms": [{"strategy": "freeze-deep", "ratio": 0.5}]}, r"arms\[0\].*has no option ratio"),
        ({"arms": [{"strategy": "freeze-deep", "freeze_ratio": 2}]}, r"arms\[0\].*freeze_ratio must lie between"),
        ({"arms": [{"strategy": "adaptive", "measure": "context"}]}, r"arms\[0\].*'context' is not measured again"),
        ({"arms": [{"strategy": "lora", "rank": "many"}]}, r"arms\[0\]\.rank: 'many' is no rank"),
        ({"arms": [{"strategy": "lora", "r": 8}]}, r"arms\[0\]\.r: lora has no such option"),
        ({"arms": []}, r"arms: "),
        ({"seeds": [1, 1]}, r"seeds: the same seed"),
        ({"seeds": [2**32]}, r"seeds: a seed is a whole number from 0 to 4294967295"),
        ({"arms": [{"strategy": "full", "learning_rate": float("inf")}]}, r"arms\[0\]\.learning_rate: .* finite"),
        ({"objective": {"w_learn": float("inf")}}, r"objective\.w_learn: .* finite"),
        ({"train": {"files": ["new.txt"], "tokens": 15, "sequence_length": 8, "batch_size": 2}}, r"train\.tokens: .*16"),
        ({"train": {"files": [], "tokens": 15}}, r"train\.files: "),
        ({"train": {"files": ["new.txt"]}}, r"train\.tokens: this is missing"),
        ({"evaluate": {"newer": ["x"]}}, r"evaluate\.newer: there is no such setting"),
        ({"objective": {}, "evaluate": {"new": ["held.txt"]}}, r"objective\.forget: old/bits_per_byte needs data"),
        ({"objective": {"learn": "arc/acc"}}, r"objective\.learn: arc/acc is of no text"),
        ({"objective": {"learn": "new/perplexity"}}, r"objective\.learn: .* new can be judged by bits_per_byte, not by"),
        ({"objective": {"learn": "arc/acc_norm"}}, r"objective\.learn: .* judged by acc or mean_log_probability, not by"),
        ({"match": "everything"}, r"match: "),
        ({"diagnosis": {"perturbed": 1}}, r"diagnosis: DiagnosisConfig has no perturbed"),
        ({"processes": 3}, r"processes: 2 blocks a step cannot be shared among 3"),
    ],
)  # fmt: skip
def test_each_mistake_is_one_line_with_its_place(values, written, change, line):
    path = written({**values, **change})
    with pytest.raises(LayerTracerError, match=line) as raised:
        TrialsConfig.from_file(path)
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith(str(path))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: [", "is no valid YAML"),
        ("- a\n- b", "is no trials config"),
        ("model: m\nseeds: [0]\nseeds: [1]", "is no valid YAML.*: seeds stands there twice"),
        ("train: {tokens: 1, tokens: 2}", "is no valid YAML.*: tokens stands there twice .*line 1, column 8"),
    ],
)
def test_a_file_that_is_no_config_is_one_line(written, text, line):
    with pytest.raises(LayerTracerError, match=line) as raised:
        TrialsConfig.from_file(written(text))
    assert "\n" not in str(raised.value)


def test_a_missing_config_is_one_line(tmp_path):
    with pytest.raises(LayerTracerError, match=r"Could not read .*nowhere"):
        TrialsConfig.from_file(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("section", "field", "content", "line"),
    [
        ("evaluate", "new", None, r"evaluate\.new: there is no file"),
        ("evaluate", "old", " \n", r"evaluate\.old: there is no text"),
        ("train", "files", "", r"train\.files: there is no text"),
        ("evaluate", "probes", None, r"evaluate: .*no probes"),
    ],
)
def test_files_that_are_missing_or_empty_are_found_before_training(values, tmp_path, section, field, content, line):
    path = tmp_path / "other.txt"
    if content is not None:
        path.write_text(content)
    for name in ("files", "new", "old"):
        for part in ("train", "evaluate"):
            if name in values[part]:
                values[part][name] = [str(tmp_path / file) for file in values[part][name]]
    values[section][field] = str(path) if field == "probes" else [str(path)]
    with pytest.raises(LayerTracerError, match=line):
        check_trials(TrialsConfig(**values))


@pytest.mark.parametrize(
    ("field", "name", "content", "line"),
    [
        (
            "new",
            "rows.jsonl",
            '{"body": "a"}\n',
            r"evaluate\.new: .*rows\.jsonl, line 1 holds no text under any of text, ",
        ),
        (
            "tasks",
            "law_val.csv",
            "id,question,A,B\n0,why,x,y\n",
            r"evaluate: .*law_val\.csv, row 1: no column C, D, answer",
        ),
        (
            "tasks",
            "law.jsonl",
            '{"question": "why", "answer": 1}\n',
            r"evaluate: .*line 1: needs query, choices and gold",
        ),
        ("tasks", "law.jsonl", "", r"evaluate: .* holds no questions to evaluate on"),
    ],
)
def test_an_evaluation_set_whose_columns_do_not_fit_is_refused_in_one_line(
    values, tmp_path, field, name, content, line
):
    if field == "tasks":
        pytest.importorskip("lm_eval")
    (tmp_path / "sets").mkdir()
    path = tmp_path / "sets" / name
    path.write_text(content)
    for part, key in (("train", "files"), ("evaluate", "new"), ("evaluate", "old")):
        if key in values[part]:
            values[part][key] = [str(tmp_path / file) for file in values[part][key]]
    values["evaluate"][field] = [str(path) if path.suffix == ".jsonl" else str(path.parent)]
    with pytest.raises(LayerTracerError, match=line) as refused:
        check_trials(TrialsConfig(**values))
    assert "\n" not in str(refused.value)
