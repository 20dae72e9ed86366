from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from hf_layertracer.modeling.preserve import preserved


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


class Switching(nn.Module):
    """Turns itself into something else at the first call, as BigBird does at its first short prompt."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(kind="sparse", buckets=None)
        self.kind, self.buckets, self.inner, self.state = "sparse", None, nn.Linear(2, 2), torch.zeros(2)

    def forward(self, x):
        self.kind = self.config.kind = "full"
        self.buckets = self.config.buckets = [4, 4]
        self.inner, self.extra = nn.Linear(2, 2), nn.Linear(2, 2)
        self.state = self.state + 1
        return self.inner(x)


def test_a_model_that_changes_itself_is_changed_back():
    module = Switching()
    inner, state = module.inner, module.state
    with preserved(module):
        module(torch.ones(1, 2))
        assert module.kind == "full"
    assert module.inner is inner
    assert module.state is state
    assert [name for name, _ in module.named_children()] == ["inner"]
    assert (module.kind, module.buckets, module.config.kind, module.config.buckets) == ("sparse", None, "sparse", None)


def test_the_body_sees_the_model_uncompiled_and_finds_it_compiled_again(module):
    module.compile(backend="eager")
    module[0].compile(backend="eager")
    compiled = [part._compiled_call_impl for part in module.modules()]
    with preserved(module):
        assert all(part._compiled_call_impl is None for part in module.modules())
    assert [part._compiled_call_impl for part in module.modules()] == compiled
