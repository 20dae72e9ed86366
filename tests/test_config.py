from __future__ import annotations

import math
from dataclasses import fields

import pytest
from transformers import HfArgumentParser

from hf_layertracer.config import DiagnosisConfig, LayerTracerConfig
from hf_layertracer.errors import LayerTracerError


def test_the_defaults_are_those_of_the_contract():
    config = DiagnosisConfig()
    assert (config.perturbation, config.mask_ratio, config.seed) == ("mask", 0.3, 0)
    assert (config.rise, config.min_probability, config.estimator) == (0.1, 0.01, "exact")
    assert config.repeats is config.batch_size is config.memory_budget is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("perturbation", "zap"),
        ("estimator", "guess"),
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
        ("batch_size", -1),
        ("memory_budget", 0),
        ("memory_budget", "1GB"),
    ],
)
def test_a_setting_out_of_its_range_is_refused_by_name(name, value):
    with pytest.raises(LayerTracerError, match=rf"{name}.*{value!r}"):
        DiagnosisConfig(**{name: value})


def test_the_ends_of_the_ranges_are_allowed():
    config = DiagnosisConfig(mask_ratio=1, rise=1.0, min_probability=1, repeats=1, batch_size=1, memory_budget=1)
    assert config.mask_ratio == 1


def test_a_config_comes_back_from_the_dictionary_in_a_report():
    config = DiagnosisConfig(perturbation="noise", noise_scale=0.25, repeats=7, seed=3, memory_budget=1 << 20)
    assert set(config.to_dict()) == {f.name for f in fields(DiagnosisConfig)}
    assert DiagnosisConfig(**config.to_dict()) == config


def test_the_argument_parser_reads_a_diagnosis_config():
    (config,) = HfArgumentParser(DiagnosisConfig).parse_args_into_dataclasses(
        ["--perturbation", "skip", "--mask_ratio", "0.5", "--repeats", "4", "--memory_budget", "1000000"]
    )
    assert config == DiagnosisConfig(perturbation="skip", mask_ratio=0.5, repeats=4, memory_budget=1000000)


def test_the_argument_parser_knows_the_perturbations():
    with pytest.raises(SystemExit):
        HfArgumentParser(DiagnosisConfig).parse_args_into_dataclasses(["--perturbation", "zap"])


def test_a_tracer_config_hands_every_setting_on_to_the_diagnosis():
    settings = {
        "perturbation": "noise",
        "mask_ratio": 0.4,
        "noise_scale": 0.7,
        "repeats": 3,
        "rise": 0.2,
        "min_probability": 0.02,
        "estimator": "gradient",
        "memory_budget": 5000,
        "layers_path": "a.b",
    }
    diagnosis = LayerTracerConfig(**settings, diagnosis_batch_size=9, diagnosis_seed=11).diagnosis()
    assert diagnosis == DiagnosisConfig(**settings, batch_size=9, seed=11)
    # A setting that is added to the diagnosis alone would silently keep its default in a traced run.
    assert set(settings) | {"batch_size", "seed"} == {f.name for f in fields(DiagnosisConfig)}


@pytest.mark.parametrize(
    "settings", [{"mask_ratio": 3.0}, {"perturbation": "zap"}, {"num_probes": 0}, {"diagnose_steps": 0}]
)
def test_a_tracer_config_refuses_a_wrong_setting_at_once(settings):
    with pytest.raises(LayerTracerError, match=next(iter(settings))):
        LayerTracerConfig(**settings)


def test_a_tracer_config_names_only_the_plan_options_that_are_set():
    assert LayerTracerConfig().plan_options() == {}
    config = LayerTracerConfig(freeze_ratio=0.25, train_layers="0-3", train_head=False)
    assert config.plan_options() == {"freeze_ratio": 0.25, "layers": "0-3", "train_head": False}
    assert LayerTracerConfig(strategy="random", diagnosis_seed=5).plan_options() == {"seed": 5}


def test_the_argument_parser_reads_a_tracer_config_next_to_training_arguments():
    # A name that both dataclasses use makes argparse fail when the parser is built.
    from transformers import TrainingArguments

    parser = HfArgumentParser((TrainingArguments, LayerTracerConfig))
    _, config = parser.parse_args_into_dataclasses(
        ["--output_dir", "x", "--strategy", "full", "--diagnosis_seed", "4", "--train_head", "false"]
    )
    assert (config.strategy, config.diagnosis_seed, config.train_head) == ("full", 4, False)
