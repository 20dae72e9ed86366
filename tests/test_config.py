from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
from transformers import HfArgumentParser

from hf_layertracer import DiagnosisConfig, LayerTracerConfig
from hf_layertracer.errors import LayerTracerError


def test_the_defaults_are_those_of_the_contract():
    config = DiagnosisConfig()
    assert (config.perturbation, config.mask_ratio, config.diagnosis_seed) == ("mask,skip", 0.3, 0)
    assert (config.rise, config.min_probability) == (0.1, 0.01)
    assert (
        config.repeats
        is config.until_stderr
        is config.until_boundary
        is config.diagnosis_batch_size
        is config.memory_budget
        is None
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("perturbation", "zap"),
        ("until_stderr", 0),
        ("compute_dtype", "float8"),
        ("until_boundary", 1.5),
        ("mask_ratio", 0),
        ("mask_ratio", 1.01),
        ("mask_ratio", math.nan),
        ("rise", 0),
        ("rise", 2),
        ("min_probability", -0.1),
        ("min_probability", 1.5),
        ("noise_scale", 0),
        ("noise_scale", math.nan),
        ("repeats", 0),
        ("repeats", 1.5),
        ("repeats", True),
        ("diagnosis_batch_size", -1),
        ("diagnosis_seed", -1),
        ("memory_budget", 0),
        ("memory_budget", "1GB"),
    ],
)
def test_a_setting_out_of_its_range_is_refused_by_name(name, value):
    with pytest.raises(LayerTracerError, match=rf"{name}.*{value!r}"):
        DiagnosisConfig(**{name: value})


def test_the_ends_of_the_ranges_are_allowed():
    config = DiagnosisConfig(
        mask_ratio=1, rise=1.0, min_probability=1, repeats=1, diagnosis_batch_size=1, memory_budget=1
    )
    assert config.mask_ratio == 1


def test_a_config_comes_back_from_the_dictionary_in_a_report():
    config = DiagnosisConfig(
        perturbation="noise", noise_scale=0.25, repeats=7, diagnosis_seed=3, memory_budget=1 << 20
    )
    assert set(config.to_dict()) == {f.name for f in fields(DiagnosisConfig)}
    assert DiagnosisConfig(**config.to_dict()) == config


def test_the_argument_parser_reads_a_diagnosis_config():
    (config,) = HfArgumentParser(DiagnosisConfig).parse_args_into_dataclasses(
        ["--perturbation", "skip", "--mask_ratio", "0.5", "--repeats", "4", "--memory_budget", "1000000"]
    )
    assert config == DiagnosisConfig(perturbation="skip", mask_ratio=0.5, repeats=4, memory_budget=1000000)


def test_the_argument_parser_knows_the_perturbations():
    with pytest.raises(LayerTracerError, match="perturbation must be one of"):
        HfArgumentParser(DiagnosisConfig).parse_args_into_dataclasses(["--perturbation", "zap"])


def test_a_tracer_config_hands_every_setting_on_to_the_diagnosis():
    settings = {
        "perturbation": "noise",
        "mask_ratio": 0.4,
        "context_mask_ratio": 0.2,
        "noise_scale": 0.7,
        "repeats": 3,
        "rise": 0.2,
        "min_probability": 0.02,
        "until_stderr": 0.01,
        "compute_dtype": "model",
        "skip_probes": 3,
        "until_boundary": 0.5,
        "memory_budget": 5000,
        "layers_path": "a.b",
        "skip_long": True,
    }
    settings |= {"diagnosis_batch_size": 9, "diagnosis_seed": 11}
    assert set(settings) == {f.name for f in fields(DiagnosisConfig)}
    assert LayerTracerConfig(**settings, strategy="full").diagnosis() == DiagnosisConfig(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"mask_ratio": 3.0},
        {"perturbation": "zap"},
        {"num_probes": 0},
        {"diagnose_steps": 0},
        {"freeze_ratio": 1.0},
        {"plan_seed": -1, "strategy": "random"},
        {"strategy": "magic"},
        {"max_trainable_parameters": 10_000, "strategy": "full"},
        {"freeze_ratio": 0.5, "strategy": "full"},  # also where it is the default of strategies that take it
        {"change_steps": 20, "strategy": "freeze-deep"},
        {"plan": "plan.json", "freeze_ratio": 0.5},
    ],
)
def test_a_tracer_config_refuses_a_wrong_setting_at_once(settings):
    with pytest.raises(LayerTracerError, match=next(iter(settings))):
        LayerTracerConfig(**settings)


def test_a_tracer_config_names_only_the_plan_options_that_are_set():
    assert LayerTracerConfig().plan_options() == LayerTracerConfig(freeze_ratio=0.5).plan_options() == {}
    assert (LayerTracerConfig().freeze_ratio, LayerTracerConfig(strategy="full").freeze_ratio) == (0.5, None)
    config = LayerTracerConfig(strategy="explicit", train_layers="0-3", train_head=False)
    assert config.plan_options() == {"train_layers": "0-3", "train_head": False}
    config = LayerTracerConfig(strategy="random", freeze_ratio=0.25, plan_seed=5)
    assert config.plan_options() == {"freeze_ratio": 0.25, "plan_seed": 5}


def test_another_strategy_takes_the_place_of_one_whose_options_are_taken_back():
    config = replace(LayerTracerConfig(repeats=3), strategy="full", freeze_ratio=None)
    assert config == LayerTracerConfig(strategy="full", repeats=3)


@pytest.mark.parametrize("strategy", ["explicit", "budget"])
def test_a_tracer_config_wants_what_its_strategy_cannot_do_without(strategy):
    with pytest.raises(LayerTracerError, match=f"'{strategy}' needs"):
        LayerTracerConfig(strategy=strategy)


def test_the_argument_parser_reads_a_tracer_config_next_to_training_arguments():
    # A name that both dataclasses use makes argparse fail when the parser is built.
    from transformers import TrainingArguments

    parser = HfArgumentParser((TrainingArguments, LayerTracerConfig))
    _, config = parser.parse_args_into_dataclasses(
        ["--output_dir", "x", "--strategy", "full", "--diagnosis_seed", "4", "--train_head", "false"]
    )
    assert (config.strategy, config.diagnosis_seed, config.train_head) == ("full", 4, False)


# -- what is meant is accepted, the rest is one line ----------------------------------------------------------------


def test_numbers_may_come_as_text():
    config = LayerTracerConfig(freeze_ratio="0.25", repeats="4", diagnosis_seed=" 7 ", diagnose_after="true")
    assert (config.freeze_ratio, config.repeats, config.diagnosis_seed, config.diagnose_after) == (0.25, 4, 7, True)
    assert DiagnosisConfig(repeats="none").repeats is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"repeats": "many"}, "repeats must be a whole number, not 'many'"),
        ({"mask_ratio": "half"}, "mask_ratio must be a number, not 'half'"),
        ({"mask_ratio": [1]}, "mask_ratio must be a single value"),
        ({"mask_ratio": 1.5}, "mask_ratio must lie above 0"),
        ({"noise_scale": None}, "noise_scale must have a value"),
        ({"noise_scale": 0.0}, "noise_scale must be above 0"),
        ({"skip_long": "maybe"}, "skip_long must be true or false"),
        ({"repeats": 10**12}, "repeats must be at most 100000"),
        ({"repeats": 10**6000}, "repeats must be at most 100000"),
        ({"diagnosis_seed": -1}, "diagnosis_seed must be a whole number of at least 0"),
        ({"perturbation": 5}, "perturbation must be a name"),
        ({"perturbation": "mask,"}, "perturbation must be one of"),
    ],
)
def test_wrong_settings_of_a_diagnosis_are_one_line(settings: dict, message: str):
    with pytest.raises(LayerTracerError, match=message):
        DiagnosisConfig(**settings)


def test_settings_come_in_several_forms():
    assert LayerTracerConfig.of(None) == LayerTracerConfig()
    assert LayerTracerConfig.of("full") == LayerTracerConfig(strategy="full")
    assert LayerTracerConfig.of({"strategy": "full", "repeats": 2}) == LayerTracerConfig(strategy="full", repeats=2)
    assert LayerTracerConfig.of(DiagnosisConfig(repeats=3)) == LayerTracerConfig(repeats=3)
    assert DiagnosisConfig.of(LayerTracerConfig(repeats=3)) == DiagnosisConfig(repeats=3)
    assert type(DiagnosisConfig.of(LayerTracerConfig())) is DiagnosisConfig
    assert DiagnosisConfig.of({"repeats": 3}) == DiagnosisConfig(repeats=3)


@pytest.mark.parametrize(
    "given", [5, "magic", {"strategies": "full"}, {"strategy": "magic"}, {"strategy": 3}, ["full"]]
)
def test_settings_that_mean_nothing_are_refused_at_once(given):
    with pytest.raises(LayerTracerError):
        LayerTracerConfig.of(given)
