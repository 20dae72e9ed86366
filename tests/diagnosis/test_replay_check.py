from __future__ import annotations

import pytest
import torch

from hf_layertracer.diagnosis.layer_stack import LayerStack
from hf_layertracer.diagnosis.replay_check import check_replay, depends_on_batch, moved
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


@pytest.mark.parametrize(("scale", "likeliest"), [(1.0, 1.0), (0.01, 0.004)])
def test_replay_is_not_believed_where_it_changes_the_output(tiny_llama, scale, likeliest):
    model = tiny_llama()
    model.lm_head.weight.data *= scale
    stack = LayerStack(find_parts(model))
    ran = []
    model.model.layers[1].self_attn.register_forward_hook(lambda *_: ran.append(1))

    def norm_depends_on_layer_1(_, args):
        scaled = args[0] * (2.0 if ran else 0.5)
        ran.clear()
        return (scaled + torch.ones_like(scaled),)

    model.model.norm.register_forward_pre_hook(norm_depends_on_layer_1)
    clean = stack.run(PROMPTS)
    assert clean.logits.softmax(-1).max() <= likeliest
    assert "layer 1 changes the output" in check_replay(stack, clean)


def test_what_is_compared_does_not_depend_on_how_many_tokens_an_output_is_spread_over():
    one, other = torch.tensor([0.75, 0.25]).log(), torch.tensor([0.5, 0.5]).log()
    assert moved(one, other) == pytest.approx(0.25)
    spread = [logits.repeat_interleave(1000) for logits in (one, other + 3.0)]
    assert moved(*spread) == pytest.approx(0.25, abs=1e-5)


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_prompts_that_depend_on_each_other_are_noticed_however_unlikely_every_token_is(tiny_llama, scale):
    model = tiny_llama()
    model.model.norm.weight.data *= scale
    stack = LayerStack(find_parts(model))
    clean = stack.run(PROMPTS[:1])
    assert not depends_on_batch(stack, clean)
    model.model.layers[1].register_forward_hook(
        lambda _, args, output: 0.9 * output.mean(0, keepdim=True) + 0.1 * output
    )
    assert depends_on_batch(stack, clean)


# At the second scale no token is likely, at the third one a single token is nearly sure.
@pytest.mark.parametrize("scale", [1.0, 0.05, 4.0])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["Llama", "GPT2", "Mamba", "Mixtral"])
def test_the_rounding_of_short_data_types_is_no_reason_to_disbelieve(make_model, name, dtype, scale):
    model = make_model(name)
    stack = LayerStack(find_parts(model.to(dtype)))
    stack.final_norm.weight.data *= scale
    clean = stack.run(PROMPTS)
    assert check_replay(stack, clean) is None
    assert not depends_on_batch(stack, stack.run(PROMPTS[:1]))


def test_running_out_of_memory_during_the_check_is_no_verdict_on_replay(tiny_llama, monkeypatch):
    stack = LayerStack(find_parts(tiny_llama()))
    clean = stack.run(PROMPTS)

    def exhausted(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")

    monkeypatch.setattr(stack, "replay", exhausted)
    with pytest.raises(torch.OutOfMemoryError):
        check_replay(stack, clean)
