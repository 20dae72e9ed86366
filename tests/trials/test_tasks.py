"""A trial that asks lm-evaluation-harness: scores, items for pairing and the line of chance reach the results."""

from __future__ import annotations

import json

import pytest

from hf_layertracer import LayerTracerError, run_trials


pytest.importorskip("lm_eval")


@pytest.fixture
def task(tmp_path) -> str:
    rows = [
        {"query": f"The {word} is a", "choices": [" cat", " rose", " city"], "gold": number % 3}
        for number, word in enumerate(("animal", "flower", "thing", "city", "rose", "cat"))
    ]
    (tmp_path / "things.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(tmp_path / "things.jsonl")


def test_a_task_of_the_harness_is_paired_item_by_item_and_read_against_chance(
    make_config, in_this_process, task, tmp_path
):
    config = make_config(evaluate={"tasks": [task], "probes": None})
    result = run_trials(config, tmp_path / "out")

    metrics = {row["arm"]: row["metrics"] for row in result.rows}
    assert all("things/acc" in metrics[arm] for arm in ("base", "full", "freeze-deep"))
    assert metrics["full"]["things/mean_log_probability"] != metrics["base"]["things/mean_log_probability"]
    for unit in result.units:
        items = [item for item in unit["evaluation"]["items"] if item["set"] == "things"]
        assert [item["item"] for item in items] == [f"choices_things:{number}" for number in range(6)]
        assert sum(item["correct"] for item in items) / 6 == pytest.approx(unit["evaluation"]["metrics"]["things/acc"])
    written = (tmp_path / "out" / "results.md").read_text()
    assert "<sub>things/acc</sub>" in written  # six items cannot be told apart from chance
    assert "lm_eval" in written


def test_an_objective_that_no_task_measures_is_refused_before_anything_is_trained(
    make_config, in_this_process, task, tmp_path
):
    config = make_config(evaluate={"tasks": [task], "probes": None}, objective={"learn": "thing/acc"})
    with pytest.raises(
        LayerTracerError, match=r"objective\.learn: thing/acc was not measured: there are .*things/acc"
    ):
        run_trials(config, tmp_path / "out")
    assert in_this_process == ["prepare", "base"]
