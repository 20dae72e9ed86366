from __future__ import annotations

import json
import re

import pytest
from transformers import LlamaConfig, TrainingArguments

from hf_layertracer import LayerTracerError, estimate_training, make_plan
from hf_layertracer.estimate.config import EstimateConfig
from hf_layertracer.modeling.loading import load_skeleton
from hf_layertracer.planning import read_plan


@pytest.fixture
def folder(tmp_path):
    LlamaConfig(
        vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4,
        architectures=["LlamaForCausalLM"],
    ).save_pretrained(tmp_path)  # fmt: skip
    return tmp_path


@pytest.mark.parametrize("name", ["", "config.json"])
def test_json_holds_what_the_function_returns_from_a_configuration_alone(folder, run, name):
    options = ["--batch-size", 2, "--sequence-length", 16, "--optimizer", "adafactor", "--device", "24GB"]
    status, out, _ = run("plan", folder / name, "--strategy", "freeze-shallow", "--estimate", "--json", *options)
    args = TrainingArguments(
        output_dir="x", per_device_train_batch_size=2, optim="adafactor", use_cpu=True, report_to="none"
    )
    plan = make_plan(load_skeleton(str(folder)), "freeze-shallow")
    expected = estimate_training(str(folder), plan, args, sequence_length=16, device="24GB")
    assert status == 0
    assert json.loads(out) == json.loads(expected.model_dump_json())


def test_the_table_says_how_each_figure_is_known(folder, run):
    status, out, _ = run("plan", folder, "--estimate", "--sequence-length", 16, "--device", "H100 80GB")
    assert status == 0
    for line in ("weights .* counted", "activations .* traced", "time .* device table", "fits H100 80GB .* yes"):
        assert re.search(line, out)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--device", "toaster"], "Unknown device"),
        (["--zero", 3], "several devices"),
        (["--zero", 3, "--fsdp", "--world-size", 2], "choose one"),
        (["--zero", 7, "--world-size", 2], "1, 2 or 3"),
        (["--precision", "fp8"], "bf16, fp16"),
        (["--batch-size", 0], "at least 1"),
        (["--optimizer", "magic"], "does not take"),
    ],
)
def test_bad_options_are_one_line(folder, run, options, said):
    status, _, error = run("plan", folder, "--estimate", *options)
    assert status == 1
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--json"], "--json prints an estimate: add --estimate"),
        (["--batch-size", 8], "--batch-size describes a training run: add --estimate or --max-memory"),
        (["--fsdp", "--world-size", 2], "describes a training run"),
        (["--device", "24GB", "--max-memory", "1GB"], "--device describes a training run: add --estimate."),
        (["--estimate", "--export", "names"], "name a file for the export with --out"),
    ],
)
def test_options_that_would_do_nothing_are_refused(folder, run, options, said):
    status, out, error = run("plan", folder, *options)
    assert (status, out) == (1, "")
    assert said in error
    assert error.count("\n") == 1


def test_an_estimate_and_a_file_are_both_written(folder, run, tmp_path):
    options = ["--estimate", "--json", "--batch-size", 1, "--sequence-length", 8]
    status, out, _ = run("plan", folder, *options, "--out", tmp_path / "plan.json")
    assert (status, json.loads(out)["assumptions"]["batch_size"]) == (0, 1)
    assert read_plan(tmp_path / "plan.json") == make_plan(load_skeleton(str(folder)))
    run("plan", folder, *options, "--out", tmp_path / "names", "--export", "names")
    assert (tmp_path / "names").read_text().startswith("model.embed_tokens.weight\n")


def test_the_settings_check_themselves():
    with pytest.raises(LayerTracerError, match="several devices"):
        EstimateConfig(fsdp=True)
