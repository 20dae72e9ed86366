"""Arms are comparable: what trains is the same number of parameters, whichever layers a seed draws."""

from __future__ import annotations

import numpy as np
import pytest

from hf_layertracer import DiagnosisConfig, diagnose, load_probes, run_trials
from hf_layertracer.planning import make_plan
from hf_layertracer.trials.arms import OVERRULES, ArmConfig
from hf_layertracer.trials.matching import prepare_arms


LAYERS, SEEDS = 6, list(range(12))
DRAWN = [
    {"strategy": "freeze-deep", "freeze_ratio": 0.5},
    {"strategy": "random"},
    {"strategy": "random", "name": "as-told", "train_embeddings": True, "train_head": True},
]


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def model(request, tiny_llama):
    return tiny_llama(num_hidden_layers=LAYERS, tie_word_embeddings=request.param)


@pytest.fixture(scope="module")
def report(model, tiny_tokenizer):
    probes = load_probes(max_probes=4, tokenizer=tiny_tokenizer)
    return diagnose(model, probes, tokenizer=tiny_tokenizer, config=DiagnosisConfig(repeats=1))


def _plans(arm, model, report):
    arm = ArmConfig(**arm)
    for seed in SEEDS:
        yield make_plan(
            model, arm.strategy, report=report, **arm.with_options(plan_seed=seed).tracing().plan_options()
        )


def test_a_draw_of_both_ends_trains_no_more_than_others(make_config, model, report):
    config = make_config(arms=DRAWN, seeds=SEEDS, match="trainable_parameters")
    reference, drawn, told = prepare_arms(config, model, report)
    plans = list(_plans(drawn.arm, model, report))
    assert any({0, LAYERS - 1} <= set(plan.trained_layers) for plan in plans), "the case that this is about"
    assert {plan.savings.trainable_parameters for plan in plans} == {reference.trainable_parameters}
    assert {tuple(getattr(plan, name) for name in OVERRULES) for plan in plans} == {
        tuple(reference.plan[name] for name in OVERRULES)
    }
    assert drawn.off_by == 0
    assert told.plan["train_head"], "an arm that says so itself keeps what it says"


def test_layers_that_were_measured_to_matter_are_compared_without_the_vocabulary(make_config, model, report):
    arms = [DRAWN[0], *({"strategy": "explicit", "name": n, "train_layers": [0, 1, LAYERS - 1]} for n in ("by-hand",))]
    arms += [{"strategy": "sensitivity"}, {"strategy": "block-influence"}, {"strategy": "freeze-shallow"}]
    reference, by_hand, *ranked = prepare_arms(make_config(arms=arms, match="trainable_parameters"), model, report)
    assert by_hand.plan["train_head"], "what takes no ratio is not matched, and keeps its own rule"
    for arm in ranked:
        assert {name: arm.plan[name] for name in OVERRULES} == {name: reference.plan[name] for name in OVERRULES}
        assert arm.off_by == 0


def test_without_options_to_match_the_draw_that_is_furthest_off_is_told(make_config, model, report):
    arms = [DRAWN[0], {"strategy": "random", "freeze_ratio": 0.5}]
    reference, drawn = prepare_arms(make_config(arms=arms, seeds=SEEDS, match="trainable_parameters"), model, report)
    counts = [plan.savings.trainable_parameters for plan in _plans(drawn.arm, model, report)]
    assert len(set(counts)) > 1
    furthest = max((count / reference.trainable_parameters - 1 for count in counts), key=np.abs)
    assert drawn.off_by == pytest.approx(furthest)


@pytest.mark.parametrize(("every", "said"), [(3, True), (2, False)])
def test_an_arm_that_never_comes_to_use_gradients_is_named(make_config, in_this_process, tmp_path, every, said):
    arm = {"strategy": "grass", "freeze_ratio": 0.5, "change_steps": every, "thaw_warmup_steps": 1}
    config = make_config(arms=[arm, {"strategy": "lisa", "change_steps": 3, "thaw_warmup_steps": 1}])
    assert config.train.steps == 6
    notes = run_trials(config, tmp_path).notes
    assert any("grass never uses a gradient" in note for note in notes) == said
    assert not any("lisa" in note for note in notes)
