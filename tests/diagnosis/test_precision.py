from __future__ import annotations

import numpy as np
import pytest
import torch

from hf_layertracer.config import DiagnosisConfig
from hf_layertracer.diagnosis import precision
from hf_layertracer.diagnosis.diagnose import diagnose
from hf_layertracer.diagnosis.layer_stack import LayerStack
from hf_layertracer.modeling import find_parts


IDS = torch.tensor([(5, 80, 31, 7, 200, 9), (90, 91, 92, 93, 5, 6)])


def measured(model, probes, **settings):
    report = diagnose(model, probes, config=DiagnosisConfig(perturbation="mask,skip", repeats=2, **settings))
    return report, report.first.sensitivities["mask"], report.first.sensitivities["skip"]


def test_bfloat16_is_near_the_models_own_type_and_said_to_be_used(tiny_llama, token_probes):
    _, own, own_skip = measured(tiny_llama(), token_probes, compute_dtype="model")
    _, narrow, skip = measured(tiny_llama(), token_probes, compute_dtype="bfloat16")
    assert (own.compute_dtype, own.compute_error) == (None, None)
    assert (narrow.compute_dtype, narrow.compute_problem) == ("bfloat16", None)
    assert 0 < narrow.compute_error < precision.TOLERANCE
    assert narrow.mean != own.mean
    assert narrow.mean == pytest.approx(own.mean, abs=0.02)
    # What is not random is measured exactly.
    assert skip.compute_dtype is None
    assert skip.mean == pytest.approx(own_skip.mean, abs=1e-6)


def test_where_a_sample_moves_too_far_bfloat16_is_given_up_and_the_report_says_why(
    tiny_llama, token_probes, monkeypatch
):
    monkeypatch.setattr(precision, "TOLERANCE", 1e-9)
    _, own, _ = measured(tiny_llama(), token_probes, compute_dtype="model")
    report, given_up, _ = measured(tiny_llama(), token_probes, compute_dtype="bfloat16")
    assert given_up.compute_dtype is None
    assert given_up.mean == pytest.approx(own.mean, abs=1e-6)
    assert any("not all replayed in bfloat16: a sample of draws moved by" in note for note in report.notes)


def test_a_layer_that_does_not_run_in_bfloat16_is_replayed_in_its_own_type(tiny_llama, token_probes):
    model = tiny_llama()

    def refuse(module, args):
        if torch.is_autocast_enabled("cpu"):
            raise RuntimeError("not implemented for 'BFloat16'")

    model.model.layers[2].register_forward_pre_hook(refuse)
    report, found, _ = measured(model, token_probes, compute_dtype="bfloat16")
    assert (found.compute_dtype, found.path) == (None, "replay")
    assert any("does not run in bfloat16" in note for note in report.notes)


@pytest.mark.parametrize(
    ("width", "fast", "expected"), [(512, True, torch.bfloat16), (512, False, None), (64, True, None)]
)
def test_left_alone_it_depends_on_hardware_and_width(tiny_llama, monkeypatch, width, fast, expected):
    monkeypatch.setattr(precision, "is_fast_in_bfloat16", lambda device: fast)
    stack = LayerStack(find_parts(tiny_llama()))
    assert precision.wanted_dtype(stack, DiagnosisConfig(), width) == expected
    half = LayerStack(find_parts(tiny_llama().to(torch.bfloat16)))
    assert precision.wanted_dtype(half, DiagnosisConfig(), width) is None


def test_only_the_layers_compute_in_another_type(tiny_llama):
    model, seen = tiny_llama(), {}
    stack = LayerStack(find_parts(model))
    for name, module in (("layer", model.model.layers[2].mlp), ("norm", model.model.norm), ("head", model.lm_head)):
        module.register_forward_hook(lambda _, args, out, name=name: seen.update({name: out.dtype}))
    with torch.no_grad():
        clean = stack.run(IDS)
        logits = stack.replay(clean, 0, [clean.states[1]], IDS, torch.bfloat16)[0]
    assert seen == {"layer": torch.bfloat16, "norm": torch.float32, "head": torch.float32}
    assert np.abs((logits.softmax(-1) - clean.logits.softmax(-1)).numpy()).max() < 0.02
