"""The main job as `make demo` runs it, shortened: real model, real corpus, real processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hf_layertracer import LayerTracerReport, load_probes
from hf_layertracer.demo import run as demo_run


def test_the_demo_compares_both_strategies_and_leaves_its_files(tmp_path: Path, monkeypatch):
    few = load_probes(max_probes=4)
    monkeypatch.setattr(
        demo_run, "diagnose", lambda model, tokenizer, config: demo_run_diagnose(model, few, tokenizer, config)
    )
    results = demo_run.run_demo(tmp_path, steps=2, batch_size=2, held_out_blocks=2, repeats=1)

    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert (tmp_path / "layertracer_report.png").read_bytes().startswith(b"\x89PNG")
    frozen, full = results["runs"]
    assert (frozen["strategy"], full["strategy"]) == ("freeze-deep", "full")
    # Two processes evaluate the same model.
    assert frozen["training"]["eval_loss_before"] == pytest.approx(full["training"]["eval_loss_before"], rel=1e-5)
    assert frozen["training"]["eval_loss_after"] != frozen["training"]["eval_loss_before"]
    assert frozen["training"]["trainable_parameters"] < full["training"]["trainable_parameters"] / 2
    assert frozen["training"]["peak_memory_bytes"] < full["training"]["peak_memory_bytes"]
    assert frozen["training"]["tokens"] == 2 * 2 * 128

    report = LayerTracerReport.load(tmp_path)
    assert report.plan.frozen_layers == list(range(15, 30))
    assert report.training.steps == 2
    assert report.model.id == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert any("GGUF" in note for note in report.notes), "the weights are not those of the Hub"
    # The table's loss must be that of the report a reader opens.
    assert report.training.eval_loss_after == frozen["training"]["eval_loss_after"]


def demo_run_diagnose(model, probes, tokenizer, config):
    from hf_layertracer import diagnose

    return diagnose(model, probes, tokenizer=tokenizer, config=config)
