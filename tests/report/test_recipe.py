"""The three lines in the card repeat the report."""

from __future__ import annotations

import ast

import pytest

from hf_layertracer import DiagnosisConfig, Probe, diagnose
from hf_layertracer.probes import builtin_probes
from hf_layertracer.records import TrainingOutcome
from hf_layertracer.report.markdown import report_section
from hf_layertracer.report.recipe import asked_builtin_probes, recipe


TRAINING = {"steps": 3, "seconds": 1.0, "peak_memory_bytes": 1, "peak_memory_of": "cuda", "trainable_parameters": 1}


def run(code: str, **names):
    exec(code, names)
    return names


def keywords(code: str) -> dict:
    """The arguments that the second line gives."""
    call = ast.parse(code.splitlines()[1]).body[0].value
    return {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}


def test_a_diagnosis_is_repeated_exactly(tiny_llama, tiny_tokenizer):
    model = tiny_llama(num_hidden_layers=2)
    config = DiagnosisConfig(perturbation="noise", noise_scale=0.25, repeats=2, diagnosis_seed=3, rise=0.2)
    report = diagnose(model, builtin_probes(), tokenizer=tiny_tokenizer, config=config)
    code = recipe(report)
    assert len(code.splitlines()) == 3
    assert code in report_section(report)
    assert "the probes are those of the package" in report_section(report)
    again = run(code, model=model, tokenizer=tiny_tokenizer)["report"]
    assert again.probes.sha256 == report.probes.sha256
    assert again.sensitivity == report.sensitivity
    assert again.task_particle == report.task_particle
    report.training = TrainingOutcome(**TRAINING)
    trained = recipe(report)
    assert "from hf_layertracer import LayerTracerConfig, LayerTracerTrainer, load_probes" in trained
    assert "probes=load_probes()" in trained.splitlines()[2]
    assert "num_probes" not in trained


def test_a_set_of_the_package_is_named(make_report):
    probes = builtin_probes("builtin:structured")
    items = [{"prompt": p.prompt, "target": p.target, "task": p.task, "tokens": 5} for p in probes]
    report = make_report(probes=len(probes), probes__items=items)
    assert asked_builtin_probes(report) == "builtin:structured"
    assert 'load_probes("builtin:structured")' in recipe(report)


def test_other_probes_are_asked_for(tiny_llama, tiny_tokenizer):
    probes = [*builtin_probes()[:-1], Probe("One, two,", " three")]
    report = diagnose(
        tiny_llama(num_hidden_layers=1), probes, tokenizer=tiny_tokenizer, config=DiagnosisConfig(repeats=1)
    )
    assert not asked_builtin_probes(report)
    assert 'load_probes("probes.jsonl")' in recipe(report)
    assert f"the {len(probes)} probes with the SHA-256 above" in report_section(report)


def test_a_training_run_is_repeated_with_its_plan(make_report, make_plan_for, make_later):
    plan = make_plan_for(6, strategy="explicit", options={"train_layers": [0, 1, 5], "train_norm": True})
    config = {
        "perturbation": "skip",
        "diagnosis_seed": 4,
        "diagnosis_batch_size": 3,
        "memory_budget": 100,
        "repeats": None,
    }
    report = make_report(plan=plan, training=TRAINING, settings=config, later=[make_later(6, step=3)])
    code = recipe(report)
    compile(code, "recipe", "exec")
    assert keywords(code) == {
        "strategy": "explicit",
        "train_layers": "0,1,5",
        "train_norm": True,
        "num_probes": 4,
        "perturbation": "skip",
        "diagnosis_seed": 4,
        "diagnose_after": True,
    }
    from hf_layertracer import LayerTracerConfig

    assert run(code.splitlines()[1], LayerTracerConfig=LayerTracerConfig)["config"].train_layers == "0,1,5"


@pytest.mark.parametrize("text", ["'); import os #", "```", "a\nb", "<!-- layertracer:end -->", "\\", "`x`", "é"])
def test_no_string_of_a_report_becomes_code(make_report, make_plan_for, text):
    plan = make_plan_for(6, strategy=text, options={"train_layers": text, text: text})
    report = make_report(plan=plan, training=TRAINING, settings={text: text, "layers_path": text})
    assert keywords(recipe(report)) == {"num_probes": 4}
    assert keywords(recipe(make_report(settings={text: text, "layers_path": text}))) == {}
