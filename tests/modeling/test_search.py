from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hf_layertracer.errors import UntraceableModelError
from hf_layertracer.modeling import find_parts
from tests.architectures.tiny import tiny_config, tiny_model


class Lists(nn.Module):
    """Lists of equal length, of which `order` names the members that a forward pass calls, as `"name index"`."""

    def __init__(self, names: str, order: str, fails: bool = False):
        super().__init__()
        self.embed, self.head, self.order, self.fails = nn.Embedding(9, 4), nn.Linear(4, 9), order.split(), fails
        self.batch = nn.BatchNorm1d(4)
        for name in names.split():
            setattr(self, name, nn.ModuleList(nn.Linear(4, 4) for _ in range(3)))

    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        for step in self.order:
            hidden = getattr(self, step[0])[int(step[1:])](hidden)
        self.batch(hidden.flatten(0, 1))
        if self.fails:
            raise RuntimeError("no answer")
        return SimpleNamespace(logits=self.head(hidden))


@pytest.mark.parametrize(
    ("order", "found"),
    [
        ("b0 b1 b2", "b"),
        ("a0 a1 a2", "a"),
        ("a2 a1 a0 b0 b1 b2", "b"),
        ("a0 a1 a2 a0 b0 b1 b2", "b"),
        ("a0 b0 b1 b2 c1", "b"),  # a and c are lists of three, too, of which one member is called
        ("b0 b2", "b"),
    ],
)
def test_a_forward_pass_decides_between_lists_of_equal_length(order, found):
    if "c" in order:
        model = Lists("a b c", order)
        model.a, model.c = model.a[:2], model.c[:2]
    else:
        model = Lists("a b", order)
    assert find_parts(model).layers_path == found


def test_the_forward_pass_leaves_the_model_as_it_was():
    model = Lists("a b", "b0 b1 b2").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    find_parts(model)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_model_that_fails_is_judged_by_what_ran_until_then():
    assert find_parts(Lists("a b", "b0 b1 b2", fails=True)).layers_path == "b"


def test_without_a_forward_pass_structure_decides():
    with torch.device("meta"):
        model = tiny_model(tiny_config("phi4_multimodal"), fill=False)
    # A picture's encoder has as many layers, of transformers' own class too.
    assert find_parts(model).layers_path == "model.layers"


def test_layers_in_several_parallel_lists_are_refused():
    with pytest.raises(UntraceableModelError, match=r"parts of each layer in several lists \(a, b, \.\.\.\)"):
        find_parts(Lists("a b", "a0 b0 a1 b1 a2 b2"))


@pytest.mark.parametrize(
    ("model_type", "path"),
    [
        ("modernbert-decoder", "model.layers"),  # its head is called decoder
        ("git", "git.encoder.layer"),  # a picture's encoder inside the decoder, with as many layers
        ("blt", "model.global_transformer.layers"),  # four lists of layers
        ("longcat_flash", "model.layers"),  # half as many as its configuration says
        ("bart", "model.decoder.layers"),
        ("gemma3", "model.language_model.layers"),
    ],
)
def test_layers_are_found_where_names_mislead(model_type, path):
    assert find_parts(tiny_model(tiny_config(model_type))).layers_path == path
