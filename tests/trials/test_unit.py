"""What one run of a trial is told, and what it writes down of its cost."""

from __future__ import annotations

from functools import cached_property
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainingArguments

from hf_layertracer.trials.arms import ArmConfig
from hf_layertracer.trials.folder import UnitFolder
from hf_layertracer.trials.unit import _arguments, _cost


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


def test_one_process_takes_as_many_blocks_on_several_gpus(make_config, tmp_path, monkeypatch):
    class TwoGpus(TrainingArguments):
        @cached_property
        def _setup_devices(self):
            self._n_gpu = 2
            return torch.device("cpu")

    monkeypatch.setattr("hf_layertracer.trials.unit.TrainingArguments", TwoGpus)
    config = make_config()
    arguments = _arguments(UnitFolder(tmp_path), config, ArmConfig(strategy="full"), 0)
    assert arguments.train_batch_size == config.train.batch_size
