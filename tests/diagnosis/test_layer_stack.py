from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hf_layertracer.diagnosis.layer_stack import LayerStack
from hf_layertracer.errors import UntraceableModelError
from hf_layertracer.modeling import find_parts


IDS = torch.tensor([[5, 80, 31, 7, 200, 9], [90, 91, 92, 93, 5, 6], [14, 3, 77, 60, 60, 2]])


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def stack_of(model):
    return LayerStack(find_parts(model))


def test_a_clean_run_is_the_models_own_forward_pass(any_model, reference):
    stack = stack_of(any_model)
    clean = stack.run(IDS)
    assert torch.allclose(clean.logits, any_model(input_ids=IDS).logits[:, -1].float(), atol=1e-5)
    assert len(clean.states) == stack.num_layers + 1
    exact = copy.deepcopy(any_model).double()
    for row, prompt in enumerate(IDS.tolist()):
        states, logits = reference.run(exact, find_parts(exact).layers, prompt)
        assert clean.logits[row].double() == pytest.approx(torch.tensor(logits), abs=2e-4)
        for ours, theirs in zip(clean.states, states, strict=True):
            assert torch.allclose(ours[row].double(), theirs[0].double(), atol=2e-4)


def test_replay_from_every_layer_gives_the_clean_output(any_model):
    stack = stack_of(any_model)
    clean = stack.run(IDS)
    for index in range(stack.num_layers):
        assert torch.allclose(stack.replay(clean, index, [clean.states[index + 1]], IDS), clean.logits, atol=1e-5)


def test_replay_runs_the_later_layers_and_only_those(tiny_llama):
    stack = stack_of(tiny_llama())
    clean, ran = stack.run(IDS), []
    # The attention inside a layer: a hook on the layer itself would also see a layer that is answered for.
    handles = [
        layer.self_attn.register_forward_hook(lambda *_, index=index: ran.append(index))
        for index, layer in enumerate(stack.layers)
    ]
    for index in range(4):
        ran.clear()
        stack.replay(clean, index, [clean.states[index + 1]], IDS)
        assert ran == list(range(index + 1, 4))
    for handle in handles:
        handle.remove()


def test_layers_that_share_a_pass_each_have_rows_of_their_own(any_model):
    stack = stack_of(any_model)
    clean = stack.run(IDS)
    noise = [torch.randn(s.shape, generator=torch.Generator().manual_seed(i)) for i, s in enumerate(clean.states)]
    answers = [state + noise[index] for index, state in enumerate(clean.states)]
    for first in range(stack.num_layers):
        for count in range(1, stack.num_layers - first + 1):
            together = stack.replay(clean, first, answers[first + 1 : first + 1 + count], IDS)
            for offset, logits in enumerate(together):
                alone = stack.replay(clean, first + offset, [answers[first + 1 + offset]], IDS)[0]
                assert torch.allclose(logits, alone, atol=1e-4)
                assert not torch.allclose(logits, clean.logits, atol=1e-2)


def test_in_a_shared_pass_a_layer_runs_on_the_rows_that_entered_before_it(tiny_llama):
    model = tiny_llama(num_hidden_layers=6)
    stack = stack_of(model)
    clean = stack.run(IDS)
    ran = {}
    for index, layer in enumerate(model.model.layers):
        layer.mlp.register_forward_pre_hook(lambda _, args, index=index: ran.update({index: len(args[0])}))
    stack.replay(clean, 1, clean.states[2:5], IDS)
    assert ran == {2: len(IDS), 3: 2 * len(IDS), 4: 3 * len(IDS), 5: 3 * len(IDS)}


def test_both_paths_carry_a_perturbation_to_the_same_output(any_model):
    stack = stack_of(any_model)
    clean = stack.run(IDS)
    for index in range(stack.num_layers):
        noise = torch.randn(clean.states[0].shape, generator=torch.Generator().manual_seed(index))
        replayed = stack.replay(clean, index, [clean.states[index + 1] + noise], IDS)
        whole = stack.patch(clean, index, lambda _, after, noise=noise: after + noise, IDS)
        assert torch.allclose(replayed, whole, atol=1e-4)
        assert not torch.allclose(replayed, clean.logits, atol=1e-2)


def test_the_slow_path_sees_a_layers_input_and_output(any_model):
    stack = stack_of(any_model)
    clean = stack.run(IDS)
    for index in range(stack.num_layers):
        seen = []
        stack.patch(clean, index, lambda before, after, seen=seen: seen.extend([before, after]) or after, IDS)
        assert torch.allclose(seen[0], clean.states[index], atol=1e-5)
        assert torch.allclose(seen[1], clean.states[index + 1], atol=1e-5)


def test_rows_in_another_order_and_number_are_replayed_alike(any_model):
    stack = stack_of(any_model)
    clean = stack.run(IDS)
    rows = [2, 0, 0, 1, 2]
    for index in range(stack.num_layers):
        logits = stack.replay(clean, index, [clean.states[index + 1][rows]], IDS[rows])
        assert torch.allclose(logits, clean.logits[rows], atol=1e-5)


def test_no_layer_keeps_a_forward_of_its_own(any_model):
    stack = stack_of(any_model)
    clean = stack.run(IDS)
    stack.replay(clean, 1, [clean.states[2]], IDS)
    stack.patch(clean, 1, lambda _, after: after, IDS)
    assert not any("forward" in module.__dict__ for module in any_model.modules())


def test_a_forward_that_somebody_else_put_there_is_used_and_put_back(tiny_llama):
    # accelerate's device hooks live there.
    model = tiny_llama()
    stack = stack_of(model)
    layer, calls = stack.layers[2], []
    own = layer.forward

    def wrapped(*args, **kwargs):
        calls.append(1)
        return own(*args, **kwargs)

    layer.forward = wrapped
    clean = stack.run(IDS)
    calls.clear()
    stack.run(IDS, clean.layout)
    stack.replay(clean, 0, [clean.states[1]], IDS)
    assert len(calls) == 2
    assert layer.__dict__["forward"] is wrapped


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interruption_leaves_no_forward_behind(tiny_llama, error):
    model = tiny_llama()
    stack = stack_of(model)
    clean = stack.run(IDS)

    def interrupt(*_):
        raise error

    handle = stack.layers[3].self_attn.register_forward_hook(interrupt)
    for work in (
        lambda: stack.run(IDS, clean.layout),
        lambda: stack.replay(clean, 1, [clean.states[2]], IDS),
        lambda: stack.patch(clean, 1, lambda _, after: after, IDS),
    ):
        with pytest.raises(error):
            work()
        assert not any("forward" in module.__dict__ for module in model.modules())
    handle.remove()


class _Looping(nn.Module):
    def __init__(self, order):
        super().__init__()
        self.embed, self.layers, self.order = (
            nn.Embedding(300, 8),
            nn.ModuleList(nn.Linear(8, 8) for _ in "abc"),
            order,
        )

    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        for index in self.order:
            hidden = self.layers[index](hidden)
        return SimpleNamespace(logits=hidden)


@pytest.mark.parametrize("order", [[2, 1, 0], [0, 1, 2, 2], [0, 0], []])
def test_layers_that_are_not_called_once_each_in_order_are_refused(order):
    with pytest.raises(UntraceableModelError, match="called in the order"):
        stack_of(_Looping(order)).run(IDS)


def test_a_plain_module_with_layers_in_order_can_be_run():
    stack = stack_of(_Looping([0, 1, 2]))
    assert stack.run(IDS).logits.shape == (3, 8)
    assert stack.input_device == torch.device("cpu")
    assert stack.vocabulary is None


def test_a_model_without_logits_is_refused(tiny_llama):
    with pytest.raises(UntraceableModelError, match="LlamaModel is not a causal language model"):
        stack_of(tiny_llama().model).run(IDS)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_logits_come_in_at_least_float32(tiny_llama, dtype):
    clean = stack_of(tiny_llama().to(dtype)).run(IDS)
    assert clean.logits.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert clean.states[1].dtype == dtype


class _Leaving(nn.Module):
    """Runs only some of its layers."""

    class Layer(nn.Linear):
        def forward(self, hidden):
            return hidden + torch.tanh(super().forward(hidden.cumsum(1)))

    def __init__(self, order):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.order = nn.Embedding(300, 8), order
        self.layers = nn.ModuleList(self.Layer(8, 8) for _ in range(4))

    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        for index in self.order:
            hidden = self.layers[index](hidden)
        return SimpleNamespace(logits=hidden)


@pytest.mark.parametrize("order", [[1, 3], [0, 1], [2], [0, 1, 2, 3]])
def test_the_answer_of_a_layer_that_does_not_run_is_that_of_what_passes_it_by(order):
    stack = stack_of(_Leaving(order))
    clean = stack.run(IDS)
    assert clean.called == order
    for index in range(4):
        if index not in order:
            assert clean.states[index + 1] is clean.states[index]
    noise = [torch.randn(s.shape, generator=torch.Generator().manual_seed(i)) for i, s in enumerate(clean.states)]
    answers = [state + noise[index] for index, state in enumerate(clean.states)]
    for first in range(4):
        together = stack.replay(clean, first, answers[first + 1 :], IDS)
        for offset, logits in enumerate(together):
            index = first + offset
            state = clean.states[index + 1] + noise[index + 1]
            for layer in [layer for layer in order if layer > index]:
                state = stack.layers[layer](state)
            assert torch.allclose(logits, state[:, -1], atol=1e-5)
            patched = stack.patch(clean, index, lambda _, after, i=index: after + noise[i + 1], IDS)
            assert torch.allclose(patched, state[:, -1], atol=1e-5)
            before = []
            stack.patch(clean, index, lambda b, after, seen=before: seen.append(b) or after, IDS)
            assert torch.allclose(before[0], clean.states[index], atol=1e-5)
