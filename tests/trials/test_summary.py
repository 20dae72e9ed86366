"""Fair words: what is a difference, what is at chance, and which error comes from where."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex

from hf_layertracer.report.palette import GREY
from hf_layertracer.trials import TrialsResult
from hf_layertracer.trials.figures import draw_trade_off
from hf_layertracer.trials.summary import NO_DIFFERENCE, Lead, Summary, verdict
from hf_layertracer.trials.tables import result_tables
from hf_layertracer.trials.trade_off import trade_off
from hf_layertracer.viewer.tabs.trials import parse_results


def _evaluation(new: np.ndarray, correct: np.ndarray) -> dict[str, Any]:
    items = [
        {"set": "new", "item": str(number), "group": "file", "value": float(value), "bytes": 100 + number}
        for number, value in enumerate(new)
    ]
    items += [
        {"set": "quiz", "item": str(number), "group": f"subject {number % 10}", "correct": bool(value), "value": -1.5}
        for number, value in enumerate(correct)
    ]
    quiz = {"quiz/acc": float(correct.mean()), "quiz/mean_log_probability": -1.5}
    weights = 100 + np.arange(len(new))
    return {
        "metrics": {"new/bits_per_byte": float(np.average(new, weights=weights)), **quiz},
        "n": {"new/bits_per_byte": len(new), **dict.fromkeys(quiz, len(correct))},
        "chance": {"quiz/acc": 0.25, "quiz/mean_log_probability": -1.39},
        "protocols": {},
        "items": items,
        "notes": [],
    }


def _result(runs: dict[tuple[str, int | None], dict[str, Any]], seeds: list[int]) -> TrialsResult:
    arms = list(dict.fromkeys(arm for arm, _ in runs if arm != "base"))
    cost = {
        "tokens_per_second": 10.0,
        "peak_memory_bytes": 2**30,
        "optimizer_bytes": 8,
        "flops": 1e9,
        "trainable_parameters": 1,
    }
    return TrialsResult(
        config={
            "seeds": seeds,
            "model": "m",
            "train": {"tokens": 1, "batch_size": 1, "sequence_length": 1, "learning_rate": 1.0},
        },
        versions={},
        machine="a test",
        arms=[
            {"arm": {"name": arm, "strategy": arm}, "trainable_parameters": 1, "off_by": None, "plan": None}
            for arm in arms
        ],
        units=[
            {
                "arm": arm, "seed": seed, "strategy": arm, "options": {}, "learning_rate": 1.0, "fingerprint": "",
                "evaluation": evaluation, "cost": cost, "losses": [], "plan": None, "allocations": 1,
            }
            for (arm, seed), evaluation in runs.items()
        ],
    )  # fmt: skip


@pytest.fixture
def draw() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def result(draw) -> TrialsResult:
    """An arm that learns, and one that does what the untouched model does, within noise; the quiz is guessed."""
    base, quiz = draw.normal(2.0, 0.3, 40), draw.random(200) < 0.25
    runs = {("base", None): _evaluation(base, quiz)}
    for seed in (0, 1, 2):
        runs["full", seed] = _evaluation(base - 0.5 + draw.normal(0, 0.05, 40) + 0.01 * seed, draw.random(200) < 0.3)
        runs["random", seed] = _evaluation(base + draw.normal(0, 0.05, 40), draw.random(200) < 0.2)
    return _result(runs, [0, 1, 2])


def test_a_difference_inside_its_error_is_called_no_difference(result):
    summary = Summary(result)
    learned, nothing = summary.learned("full"), summary.learned("random")
    assert verdict(learned, "learned", "worse") == "learned"
    assert learned.low < learned.value < learned.high
    assert 0.4 < learned.value < 0.6
    assert verdict(nothing) == NO_DIFFERENCE
    assert verdict(summary.gain("random", "new/bits_per_byte", "full")) == "worse"
    assert verdict(summary.forgotten("full")) == "no data"


def test_seeds_and_items_are_separate_sources_of_variance(result):
    summary = Summary(result)
    learned = summary.learned("full")
    by_seed = [
        result.untouched["evaluation"]["metrics"]["new/bits_per_byte"] - row["metrics"]["new/bits_per_byte"]
        for row in result.rows
        if row["arm"] == "full"
    ]
    assert learned.value == pytest.approx(np.mean(by_seed))
    assert learned.seed_stderr == pytest.approx(np.std(by_seed, ddof=1) / math.sqrt(3))
    assert learned.item_stderr > 0
    assert learned.seeds == 3
    assert summary.mean("full", "quiz/acc").seed_stderr > 0


def test_one_seed_is_said_to_be_one(result):
    one = result.model_copy(update={"units": [u for u in result.units if u["seed"] in (None, 0)]})
    one.config["seeds"] = [0]
    assert Summary(one).learned("full").seed_stderr is None
    headline = result_tables(one)[0]
    assert "There is one seed" in headline.caption
    assert "unknown" in headline.rows[1]


def test_of_a_single_item_the_objective_has_no_error(draw):
    quiz = draw.random(200) < 0.25
    runs = {("base", None): _evaluation(np.array([2.0]), quiz)}
    runs |= {("full", seed): _evaluation(np.array([1.5 + 0.1 * seed]), quiz) for seed in (0, 1)}
    result = _result(runs, [0, 1])
    result.config["objective"] = {"w_forget": 0.0}
    score = Summary(result).score("full")
    assert (score.value, score.stderr) == (pytest.approx(0.45), None)
    result.units += [{**unit, "arm": "other"} for unit in result.units[1:]]
    assert Summary(result).lead("full", "other") == Lead(0.0, None, None)


def test_one_arm_is_ahead_of_another_by_the_items_of_both(draw):
    # Texts differ far more from each other than the two arms do on any of them.
    base, quiz = draw.normal(2.0, 0.8, 40), draw.random(200) < 0.25
    runs = {("base", None): _evaluation(base, quiz)}
    better = base - draw.normal(0.5, 0.4, 40)
    for seed in (0, 1, 2):
        runs["full", seed] = _evaluation(better + draw.normal(0, 0.01, 40), quiz)
        runs["random", seed] = _evaluation(better + 0.05 + draw.normal(0, 0.01, 40), quiz)
    result = _result(runs, [0, 1, 2])
    result.config["objective"] = {"w_learn": 2.0, "w_forget": 0.0}
    summary = Summary(result)
    first, second = summary.score("full"), summary.score("random")
    lead = summary.lead("full", "random")
    assert lead.value == pytest.approx(first.value - second.value)
    assert lead.excludes_zero
    assert first.value - second.value < 2 * math.hypot(first.stderr, second.stderr)
    gain = summary.gain("full", "new/bits_per_byte", "random")
    assert (lead.low, lead.high) == (pytest.approx(2 * gain.low), pytest.approx(2 * gain.high))

    # Two parts are no surer than the surer one, and nothing is known where one has a single item.
    result.config["objective"] = {"w_learn": 2.0, "forget": "quiz/acc", "w_forget": 1.0}
    both = Summary(result).lead("full", "random")
    assert both.value == pytest.approx(lead.value)
    assert both.low < lead.low < lead.high < both.high
    assert Summary(result).lead("full", "nobody") is None


def test_a_benchmark_at_chance_is_grey_and_in_no_headline(result):
    summary = Summary(result)
    assert summary.at_chance("quiz/acc")
    assert not summary.at_chance("new/bits_per_byte")
    tables = {table.title: table for table in result_tables(result)}
    for title in ("What was learned and what was forgotten", "Against full"):
        assert not any("quiz" in column for column in tables[title].columns)
    every = tables["All metrics"]
    assert [every.columns[index] for index in every.grey] == ["quiz/acc", "quiz/mean_log_probability"]
    assert every.rows[0] == ["chance", "", "0.2500", "-1.3900"]
    assert every.rows[1] == ["n", "40", "200", "200"]
    assert every.rows[2][0] == "base"
    assert "<sub>quiz/acc</sub>" in result.to_markdown()
    assert "at chance" in result.to_markdown()


def test_arms_are_not_ranked_by_a_benchmark_at_chance(result):
    result.config["objective"] = {"learn": "new/bits_per_byte", "w_forget": 0.0}
    assert Summary(result).objective_at_chance() is None
    assert Summary(result).ranking() == ["full", "random"]
    assert result_tables(result)[0].columns[-1] == "1 x learned - 0 x forgotten"
    result.config["objective"] = {"learn": "quiz/acc", "w_forget": 0.0}
    assert Summary(result).objective_at_chance() == "quiz/acc"
    assert not any("x learned" in column for table in result_tables(result) for column in table.columns)


def test_where_the_objective_is_at_chance_the_picture_is_grey_and_says_so(result):
    result.config["objective"] = {"learn": "new/bits_per_byte", "forget": "quiz/acc"}
    assert trade_off(result).at_chance == ["quiz/acc"]
    (axes,) = draw_trade_off(result).axes
    assert "at chance on quiz/acc" in axes.get_title()
    assert {to_hex(color) for points in axes.collections for color in points.get_facecolor()} == {GREY.lower()}
    result.config["objective"] = {"learn": "new/bits_per_byte", "forget": "new/bits_per_byte"}
    (axes,) = draw_trade_off(result).axes
    assert axes.get_title().startswith("Up is more learned")


def test_the_file_holds_the_tables_and_the_points_which_need_the_items(result):
    written = parse_results(json.dumps(result.to_dict()).encode())
    assert [table.title for table in written.tables] == [table.title for table in result_tables(result)]
    assert written.tables[2].grey == [2, 3]
    assert written.trade_off is None, "no arm has both numbers"
    result.config["objective"] = {"forget": "quiz/acc"}
    points = parse_results(json.dumps(result.to_dict()).encode()).trade_off.points
    assert points["full"][0].value == pytest.approx(Summary(result).learned("full").value)
    assert points["full"][0].low == pytest.approx(Summary(result).learned("full").low)


def test_the_table_of_costs_says_where_names_decide_what_trains(result):
    assert "By name" not in result_tables(result)[-1].caption
    for entry, patterns in zip(result.arms, ([], ["mlp"]), strict=True):
        entry["arm"]["strategy"] = "full"
        entry["plan"] = {"trained_layers": [0, 1], "train_embeddings": True, "patterns": patterns}
    costs = result_tables(result)[-1]
    assert "By name: what the arm's patterns match trains" in costs.caption
    assert [row[1] for row in costs.rows] == ["0-1, embeddings", "0-1, embeddings (by name)"]


@pytest.mark.parametrize(
    ("allocations", "said"),
    [
        ([1, 1, 1], "2 at first, never changed"),
        ([2, 2, 2], "2 at first, changed once"),
        ([4, 4, 4], "2 at first, changed 3 times"),
        ([1, 3, 4], "2 at first, changed 0 to 3 times"),
        ([], "2 at first, may change every 20 steps"),
    ],
)
def test_the_table_of_costs_says_how_often_an_arm_did_change(result, allocations, said):
    (entry,) = [entry for entry in result.arms if entry["arm"]["name"] == "random"]
    entry["arm"]["strategy"] = "lisa"
    entry["plan"] = {"trained_layers": [0, 3], "train_embeddings": False, "patterns": []}
    if not allocations:
        result.units = [unit for unit in result.units if unit["arm"] != "random"]
    for unit, count in zip(result.runs_of("random"), allocations, strict=True):
        unit["allocations"] = count
    assert result_tables(result)[-1].rows[1][:2] == ["random", said]


def test_a_benchmark_above_chance_is_compared(draw, result):
    result.units[0]["evaluation"] = _evaluation(np.full(40, 2.0), draw.random(200) < 0.8)
    assert not Summary(result).at_chance("quiz/acc")
    tables = {table.title: table for table in result_tables(result)}
    assert "gain in quiz/acc" in tables["Against full"].columns
    assert tables["All metrics"].grey == set()


def test_the_average_relative_improvement_counts_less_as_better_where_it_is(result):
    summary = Summary(result)
    full, random = (summary.mean(arm, "new/bits_per_byte").mean for arm in ("full", "random"))
    found = summary.relative_improvement("random", ["new/bits_per_byte"], "full")
    assert found == pytest.approx(full / random - 1)
    assert found < 0
    (table,) = [table for table in result_tables(result) if table.title == "Against full"]
    assert table.columns[-1] == "average relative improvement"
    assert table.rows[0][-1] == f"{found:+.1%}"  # the quiz is at chance, and counts nowhere


def test_the_average_relative_improvement_leaves_out_a_seed_of_which_one_run_is_missing(result):
    result.units = [unit for unit in result.units if (unit["arm"], unit["seed"]) != ("random", 2)]
    summary = Summary(result)
    full, random = (
        np.mean([run["evaluation"]["metrics"]["new/bits_per_byte"] for run in result.runs_of(arm) if run["seed"] != 2])
        for arm in ("full", "random")
    )
    assert summary.relative_improvement("random", ["new/bits_per_byte"], "full") == pytest.approx(full / random - 1)


def test_runs_on_other_items_are_not_compared(result):
    for unit in result.units:
        if unit["arm"] == "random":
            unit["evaluation"]["items"] = unit["evaluation"]["items"][1:]
    assert Summary(result).learned("random") is None
    assert Summary(result).not_compared() == [
        f"random with seed {seed} was evaluated on other items of new than the untouched model, so it is not compared there."
        for seed in (0, 1, 2)
    ]


@pytest.mark.parametrize(("size", "said"), [(3 * 2**20, "3"), (10016 * 2**20, "10016"), (405.12 * 2**20, "405.1")])
def test_large_sizes_are_written_without_powers_of_ten(result, size, said):
    for unit in result.runs_of("full"):
        unit["cost"]["peak_memory_bytes"] = size
    costs = result_tables(result)[-1]
    assert costs.rows[0][costs.columns.index("peak MiB")] == said
