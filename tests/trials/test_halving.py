"""Successive halving: who stays, what it costs, and the plan that it ends with."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import cast

import pytest

from hf_layertracer import LayerTracerConfig, LayerTracerError, make_plan
from hf_layertracer.cli.app import main
from hf_layertracer.planning import configured_plan
from hf_layertracer.trials import run_halving
from hf_layertracer.trials.halving import _verdict
from hf_layertracer.trials.summary import Lead, Summary


STEP = 4 * 16
ARMS = [{"strategy": "full"}, {"strategy": "freeze-deep"}, {"strategy": "freeze-shallow"}]


def test_the_better_half_runs_longer_and_the_winners_plan_is_a_file(
    make_config, in_this_process, tmp_path, tiny_llama, monkeypatch, capsys
):
    config = make_config(arms=ARMS, objective={"w_forget": 0}, match="trainable_parameters")
    result = run_halving(config, tmp_path, total_tokens=36 * STEP)
    # Each round costs half of the budget: 18 steps for three arms, then for two.
    assert [(entry["tokens"] // STEP, len(entry["arms"])) for entry in result.rounds] == [(6, 3), (9, 2)]
    assert in_this_process.count("base") == 1
    for entry in result.rounds:
        scores = [arm["score"] for arm in entry["arms"]]
        assert scores == sorted(scores, reverse=True)
    kept = [arm["name"] for arm in result.rounds[0]["arms"] if arm["kept"]]
    assert sorted(kept) == sorted(arm["name"] for arm in result.rounds[1]["arms"])
    assert result.winner == result.rounds[1]["arms"][0]["name"] == result.planned_by
    assert result.winner in result.verdict

    model = tiny_llama()
    plan = configured_plan(model, LayerTracerConfig(plan=str(tmp_path / "plan.json")))
    assert plan.trained_layers == make_plan(model, result.winner).trained_layers

    in_this_process.clear()
    assert run_halving(config, tmp_path, total_tokens=36 * STEP) == result
    assert in_this_process == []

    for command, options, said in (
        ("show", [], "Successive halving"),
        ("show", ["--markdown"], f"{9 * STEP} tokens a run"),
        ("status", [], f"round-2/{result.winner}-seed0"),
    ):
        monkeypatch.setattr("sys.argv", ["layertracer", "trials", command, str(tmp_path), *options])
        with pytest.raises(SystemExit):
            main()
        assert said in capsys.readouterr().out


@pytest.mark.parametrize("options", [{}, {"plan_seed": 7}])
def test_the_plan_of_an_arm_that_draws_says_which_draw_it_is(make_config, in_this_process, tmp_path, options):
    arms = [{"strategy": "random", **options}]
    run_halving(make_config(arms=arms, seeds=[3, 4], objective={}), tmp_path, total_tokens=2 * STEP)
    reason = json.loads((tmp_path / "plan.json").read_text())["reason"]
    # An arm whose draw is named in the config is the same for all seeds.
    assert ("that of seed 3: the other seeds (4) drew their own" in reason) == (not options)


def test_an_arm_that_diverges_leaves_and_the_others_go_on(make_config, in_this_process, tmp_path, monkeypatch, capsys):
    arms = [{"strategy": "full", "learning_rate": 1e9}, *ARMS[1:]]
    result = run_halving(make_config(arms=arms, objective={"w_forget": 0}), tmp_path, total_tokens=36 * STEP)
    assert [sorted(arm["name"] for arm in entry["arms"]) for entry in result.rounds] == [
        ["freeze-deep", "freeze-shallow"]
    ] * 2
    cause = "full-seed0: diverged: new/bits_per_byte is not finite; lower its learning rate."
    assert [entry["failed"] for entry in result.rounds] == [{"full": cause}, {}]
    assert result.winner != "full"

    monkeypatch.setattr("sys.argv", ["layertracer", "trials", "show", str(tmp_path)])
    with pytest.raises(SystemExit):
        main()
    assert "Failed in round 1: full-seed0: diverged" in " ".join(capsys.readouterr().out.split())


def test_no_arm_is_ahead_beyond_an_error_that_is_not_known():
    def said(lead: Lead | None) -> str:
        return _verdict(cast(Summary, SimpleNamespace(lead=lambda first, second: lead)), ["full", "freeze-deep"])

    assert said(Lead(0.4, 0.1, 0.7)) == ("full is ahead of freeze-deep (+0.4000, 95 % interval +0.1000 to +0.7000).")
    assert said(Lead(0.4, -0.1, 0.9)).startswith("Between full and freeze-deep no difference was found")
    assert said(Lead(0.4, None, None)) == "full comes before freeze-deep by 0.4000, whose error is not known."
    assert "no seed of both" in said(None)


def test_a_budget_that_is_too_small_or_no_objective_is_one_line(make_config, in_this_process, tmp_path):
    with pytest.raises(LayerTracerError, match="objective: successive halving"):
        run_halving(make_config(arms=ARMS), tmp_path)
    with pytest.raises(LayerTracerError, match=f"below one step of {STEP}"):
        run_halving(make_config(arms=ARMS, objective={}), tmp_path, total_tokens=5 * STEP)
    assert in_this_process == []


def test_the_objective_weighs_learned_against_forgotten(make_config, in_this_process, tmp_path):
    from hf_layertracer.trials import run_trials

    objective = {"w_learn": 2.0, "w_forget": 0.5}
    summary = Summary(run_trials(make_config(arms=ARMS[:1], objective=objective), tmp_path))
    rows = {row["arm"]: row["metrics"] for row in json.loads((tmp_path / "results.json").read_text())["rows"]}
    learned = rows["base"]["new/bits_per_byte"] - rows["full"]["new/bits_per_byte"]
    forgotten = rows["full"]["old/bits_per_byte"] - rows["base"]["old/bits_per_byte"]
    assert summary.learned("full").value == pytest.approx(learned)
    assert summary.forgotten("full").value == pytest.approx(forgotten)
    assert summary.score("full").value == pytest.approx(2 * learned - 0.5 * forgotten)
