from __future__ import annotations

import math

import pytest
import torch

from hf_layertracer.diagnosis.score import score_probes
from hf_layertracer.errors import LayerTracerError
from hf_layertracer.probes import Probe


PROBES = [Probe((5, 80, 31, 7), 9), Probe((90, 91), 5), Probe((14, 3, 77, 60, 60, 2), 11), Probe((7,), 200)]


def test_the_scores_are_those_of_one_prompt_at_a_time(tiny_llama):
    model = tiny_llama().double()
    with torch.no_grad():
        outputs = [model(input_ids=torch.tensor([probe.prompt])).logits[0, -1] for probe in PROBES]
    known = Probe(PROBES[0].prompt, int(outputs[0].argmax()))
    probes = [known, *PROBES]
    expected = [
        float(output[probe.target] - output.logsumexp(0))
        for output, probe in zip([outputs[0], *outputs], probes, strict=True)
    ]
    scores = score_probes(model, probes)
    assert scores.mean_log_probability == pytest.approx(math.fsum(expected) / 5, abs=1e-9)
    right = sum(int(output.argmax()) == probe.target for output, probe in zip(outputs, PROBES, strict=True))
    assert scores.accuracy == (1 + right) / 5 == sum(scores.correct) / 5
    assert scores.log_probabilities == pytest.approx(expected, abs=1e-9)


def test_the_model_is_left_as_it_was(tiny_llama):
    model = tiny_llama().train()
    score_probes(model, PROBES)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        (Probe((5, 320), 7), "Probe 1: token 320 of the prompt is outside.* vocabulary of 320"),
        (Probe((5, -1), 7), "Probe 1: token -1 of the prompt"),
        (Probe((5, 6), 320), "Probe 1: target token 320 is outside"),
    ],
)
def test_a_token_that_the_model_does_not_know_is_named(tiny_llama, probe, message):
    with pytest.raises(LayerTracerError, match=message):
        score_probes(tiny_llama(), [PROBES[0], probe])
