from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from hf_layertracer.config import DiagnosisConfig
from hf_layertracer.diagnosis.diagnose import diagnose
from hf_layertracer.errors import LayerTracerError
from hf_layertracer.modeling.preserve import preserved
from hf_layertracer.modeling.weights import checksum
from hf_layertracer.probes import Probe
from tests.architectures.tiny import tiny_config, tiny_model


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


# -- models that write to their own weights --------------------------------------------------------------------------


class Rescaling(nn.Module):
    """Divides a weight in its first pass in evaluation mode, for good, as RWKV does."""

    def __init__(self, at_pass=1):
        super().__init__()
        self.inner, self.rescaled, self.passes, self.at_pass = nn.Linear(4, 4), False, [0], at_pass

    def forward(self, x):
        self.passes[0] += 1
        if self.passes[0] >= self.at_pass and not self.rescaled and not self.training:
            with torch.no_grad():
                self.inner.weight.div_(2)
            self.rescaled = True
        return self.inner(x)


def test_weights_that_the_first_pass_writes_to_are_put_back_before_every_other_and_at_the_end():
    model = Rescaling().train()
    before, x = model.inner.weight.clone(), torch.ones(1, 4)
    for _ in range(3):
        with preserved(model), torch.no_grad():
            outputs = [model(x) for _ in range(3)]
            assert torch.allclose(outputs[0], torch.nn.functional.linear(x, before / 2, model.inner.bias))
            assert torch.equal(outputs[1], outputs[0])
            assert torch.equal(outputs[2], outputs[0])
        assert torch.equal(model.inner.weight, before)
        assert not model.rescaled


def test_weights_that_a_first_pass_wrote_to_before_it_failed_are_put_back():
    model = Rescaling()
    before = model.inner.weight.clone()
    with pytest.raises(RuntimeError), preserved(model):
        model(torch.ones(1, 5))
    assert torch.equal(model.inner.weight, before)
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_a_model_that_changes_its_weights_later_is_refused():
    model = Rescaling(at_pass=3)

    def run():
        with preserved(model):
            for _ in range(3):
                model(torch.ones(1, 4))

    with pytest.raises(LayerTracerError, match=r"changes its own weights when it runs \(inner\.weight.* loaded anew"):
        run()


def test_a_pass_starts_from_the_state_in_which_the_model_was_found():
    class Switching(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.other, self.mode = nn.Linear(4, 4), nn.Linear(4, 4), "sparse"

        def forward(self, x):
            if len(x) == 1:  # for good, as BigBird does
                self.inner, self.mode = self.other, "full"
            return self.inner(x)

    model, x = Switching(), torch.ones(2, 4)
    expected = model(x)
    with preserved(model):
        model(x[:1])
        assert torch.equal(model(x), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8, torch.bool, torch.float64])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (16, 8)])
def test_a_checksum_changes_with_any_value(dtype, shape):
    torch.manual_seed(0)
    tensor = torch.randint(0, 2, shape).to(dtype)
    known = checksum(tensor)
    assert checksum(tensor.clone()) == known
    flat = tensor.view(-1)
    for position in range(len(flat)):
        kept = flat[position].clone()
        flat[position] = 1 - kept.int()
        assert checksum(tensor) != known
        flat[position] = kept
    assert checksum(tensor) == known
    assert checksum(torch.empty(0)) is checksum(torch.empty(3, device="meta")) is None


def test_rwkv_gives_the_same_weights_back_after_three_diagnoses():
    config = tiny_config("rwkv")
    config.num_hidden_layers, config.rescale_every = 6, 2
    model = tiny_model(config).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    probes = [Probe((5, 80, 31, 7), 9), Probe((33, 34), 4)]
    reports = [diagnose(model, probes, config=DiagnosisConfig(perturbation="skip", repeats=1)) for _ in range(3)]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for report in reports:
        assert report.sensitivity.path == "replay"
        assert report.sensitivity.mean == pytest.approx(reports[0].sensitivity.mean, abs=1e-6)
