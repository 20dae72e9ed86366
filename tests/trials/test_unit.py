"""What one run of a trial writes down of its cost."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from hf_layertracer.trials.unit import _cost


@pytest.mark.parametrize("counts", [[10], [10, 30, 20], [30, 10], [10, 30]])
def test_the_optimizer_is_as_large_as_it_was_at_most(counts):
    plans = [
        SimpleNamespace(
            step=4 * number,
            plan=SimpleNamespace(savings=SimpleNamespace(trainable_parameters=count, flops_per_token=1)),
        )
        for number, count in enumerate(counts)
    ]
    outcome = SimpleNamespace(
        trainable_parameters=counts[-1], tokens_per_second=1.0, peak_memory_bytes=1, peak_memory_of="process"
    )
    weight = torch.zeros(counts[-1])
    trainer = SimpleNamespace(
        layertracer_report=SimpleNamespace(training=outcome, plans=plans),
        state=SimpleNamespace(global_step=4 * len(counts)),
        optimizer=SimpleNamespace(state={weight: {"exp_avg": weight, "exp_avg_sq": weight, "step": 1}}),
    )
    cost = _cost(trainer, 100)
    assert cost["optimizer_bytes"] == 8 * max(counts)
    assert cost["trainable_parameters"] == sum(counts) // len(counts)
