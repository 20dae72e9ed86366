from __future__ import annotations

import pytest
import torch

from hf_layertracer.diagnosis.layer_stack import LayerStack
from hf_layertracer.diagnosis.replay_check import check_replay
from hf_layertracer.modeling import find_parts


PROMPTS = torch.tensor([(5, 80, 31, 7, 200, 9), (90, 91, 92, 93, 5, 6), (14, 3, 77, 60, 60, 2)])


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def test_replay_is_believed_where_layers_hand_on_the_hidden_state_alone(any_model):
    stack = LayerStack(find_parts(any_model))
    assert check_replay(stack, stack.run(PROMPTS)) is None
    assert (
        check_replay(stack, stack.run(PROMPTS[[0, 0]])) is None
    )  # rows that do not differ show nothing: others are run
    assert check_replay(stack, stack.run(PROMPTS), starts=2) is None
    assert check_replay(stack, stack.run(torch.tensor([[7]]))) is None


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("length", [1, 6])
def test_replay_is_not_believed_where_layers_hand_on_more(state_passing_model, length, rows):
    # Its later layers would be given what belongs to other rows.
    stack = LayerStack(find_parts(state_passing_model))
    assert "layer 0" in check_replay(stack, stack.run(PROMPTS[:rows, :length]))


def test_replay_is_not_believed_where_it_changes_the_output(tiny_llama):
    model = tiny_llama()
    stack = LayerStack(find_parts(model))
    ran = []
    model.model.layers[1].self_attn.register_forward_hook(lambda *_: ran.append(1))

    def norm_depends_on_layer_1(_, args):
        scaled = args[0] * (2.0 if ran else 0.5)
        ran.clear()
        return (scaled + torch.ones_like(scaled),)

    model.model.norm.register_forward_pre_hook(norm_depends_on_layer_1)
    assert "layer 1 changes the output" in check_replay(stack, stack.run(PROMPTS))


def test_running_out_of_memory_during_the_check_is_no_verdict_on_replay(tiny_llama, monkeypatch):
    stack = LayerStack(find_parts(tiny_llama()))
    clean = stack.run(PROMPTS)

    def exhausted(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")

    monkeypatch.setattr(stack, "replay", exhausted)
    with pytest.raises(torch.OutOfMemoryError):
        check_replay(stack, clean)
