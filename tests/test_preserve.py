from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from hf_layertracer.preserve import preserved


@pytest.fixture
def module():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.1)))
    module.train()
    module[1].eval()
    module[3].eval()
    return module


def modes(module):
    return [child.training for child in module.modules()]


def streams():
    return random.random(), float(np.random.rand()), float(torch.rand(1))


def test_the_body_runs_in_evaluation_mode_and_mixed_modes_come_back(module):
    before = modes(module)
    assert len(set(before)) == 2
    with preserved(module):
        assert not any(modes(module))
    assert modes(module) == before


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit])
def test_everything_comes_back_whatever_ends_the_body(module, error):
    before, values = modes(module), {name: b.clone() for name, b in module.named_buffers()}
    objects = dict(module.named_buffers())

    def body():
        with preserved(module):
            module[1].train()
            module(torch.randn(8, 4))
            module[1].running_var = torch.zeros(4)
            assert not torch.equal(module[1].running_mean, values["1.running_mean"])
            raise error

    with pytest.raises(error):
        body()
    assert modes(module) == before
    for name, buffer in module.named_buffers():
        assert torch.equal(buffer, values[name])
        assert buffer is objects[name]


def test_random_states_come_back(module):
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(7)
    expected = streams()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(7)
    with preserved(module):
        streams()
        torch.manual_seed(99)
    assert streams() == expected


def test_buffers_that_hold_not_a_number_or_nothing_are_no_trouble(module):
    module.register_buffer("strange", torch.tensor([float("nan"), 1.0]))
    module.register_buffer("empty", torch.zeros(0))
    module.register_buffer("absent", None)
    with preserved(module):
        module.strange[1] = 5.0
    assert module.strange[1] == 1.0
    assert module.strange[0].isnan()


def test_a_large_buffer_is_put_back_without_being_copied(module, monkeypatch):
    # The weights of a quantized model are buffers.
    module.register_buffer("large", torch.zeros((1 << 20) + 1))
    large, cloned, own = module.large, [], torch.Tensor.clone
    monkeypatch.setattr(torch.Tensor, "clone", lambda self: cloned.append(self.numel()) or own(self))
    with preserved(module):
        module.large = torch.ones(3)
    assert module.large is large
    assert max(cloned) <= 1 << 20
