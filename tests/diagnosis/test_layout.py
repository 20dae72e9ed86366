from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hf_layertracer.diagnosis.layer_stack import LayerStack
from hf_layertracer.diagnosis.layout import Layout, Shapes, argument_axes, hidden_axes, shapes_of
from hf_layertracer.diagnosis.replay_check import check_replay
from hf_layertracer.modeling import find_parts


IDS = torch.tensor([[5, 8, 3, 7, 2, 9], [1, 4, 6, 6, 5, 0], [2, 3, 7, 1, 1, 2]])
STREAMS, WIDTH = 2, 8


class Layer(nn.Module):
    def __init__(self, owner):
        super().__init__()
        self.order, self.mix = owner.order, nn.Linear(WIDTH, WIDTH)

    def forward(self, hidden, shared, *, rows, table):
        # `rows` has a row for each prompt on its second axis, `table` none, whatever its sizes are.
        assert shared is Layer.shared
        plain = torch.einsum(f"{self.order}->btsw", hidden)
        assert rows.shape[1] == plain.shape[0]
        assert table["weights"].shape == (4, WIDTH)
        plain = plain + torch.tanh(self.mix(plain.cumsum(1)) * rows[0, :, None, None, None] + table["weights"].mean(0))
        return torch.einsum(f"btsw->{self.order}", plain)


class Permuted(nn.Module):
    """Hidden states with two residual streams, whose axes stand in any order."""

    def __init__(self, order):
        super().__init__()
        torch.manual_seed(0)
        self.order, self.embed, self.head = order, nn.Embedding(10, WIDTH), nn.Linear(WIDTH, 10)
        self.weights = nn.Parameter(torch.randn(4, WIDTH))
        self.layers = nn.ModuleList(Layer(self) for _ in range(3))

    def forward(self, input_ids):
        hidden = torch.stack([self.embed(input_ids)] * STREAMS, 2) * torch.tensor([1.0, -0.5])[:, None]
        hidden = torch.einsum(f"btsw->{self.order}", hidden)
        rows = input_ids.float().mean(1)[None]
        Layer.shared = {}
        for layer in self.layers:
            hidden = layer(hidden, Layer.shared, rows=rows, table={"weights": self.weights})
        return SimpleNamespace(logits=self.head(torch.einsum(f"{self.order}->btsw", hidden).sum(2)))


@pytest.mark.parametrize("order", ["btsw", "tbsw", "sbtw", "bstw", "stbw", "tsbw"])
def test_hidden_states_of_any_layout_are_run_alike(order):
    model, plain = Permuted(order).eval(), Permuted("btsw").eval()
    stack, reference = LayerStack(find_parts(model)), LayerStack(find_parts(plain))
    with torch.no_grad():
        clean, expected = stack.run(IDS), reference.run(IDS)
        assert check_replay(stack, clean) is None
        for ours, theirs in zip(clean.states, expected.states, strict=True):
            assert torch.allclose(ours, theirs)
        # Four rows, as many as the table has: two answers of two rows each.
        rows = [2, 0]
        noise = torch.randn(2, *clean.states[0][rows].shape, generator=torch.Generator().manual_seed(0))
        answers = [clean.states[depth][rows] + noise[depth - 1] for depth in (1, 2)]
        replayed = stack.replay(clean, 0, answers, IDS[rows])
        for index in (0, 1):
            edited = reference.patch(expected, index, lambda _, after, i=index: after + noise[i], IDS[rows])
            assert torch.allclose(replayed[index], edited, atol=1e-5)
            assert torch.allclose(
                stack.patch(clean, index, lambda _, after, i=index: after + noise[i], IDS[rows]), edited, atol=1e-5
            )


def test_one_token_is_enough_to_tell_the_axes_apart():
    stack = LayerStack(find_parts(Permuted("sbtw").eval()))
    assert stack.run(IDS[:, :1]).states[0].shape == (3, 1, STREAMS, WIDTH)


def test_axes_are_those_that_change():
    one = Shapes(
        1,
        6,
        [(4, 1, 6, 8)],
        {3: {("a",): (1, 6), ("b",): (1, 1, 6, 6), ("c",): (6, 8), ("d",): (3, 1), ("e",): (4, 6)}},
    )
    two = Shapes(
        2,
        5,
        [(4, 2, 5, 8)],
        {3: {("a",): (2, 5), ("b",): (1, 1, 5, 5), ("c",): (5, 8), ("d",): (3, 2), ("e",): (8, 5)}},
    )
    assert hidden_axes(one, two) == (1, 2)
    assert argument_axes(one, two) == {3: {("a",): (0, 1), ("d",): (1, 1), ("e",): (0, 4)}}


def test_where_nothing_follows_the_positions_they_stand_after_the_rows():
    assert hidden_axes(Shapes(1, 6, [(1, 3, 8)]), Shapes(2, 5, [(2, 3, 8)])) == (0, 1)


def test_a_layout_covers_the_passes_whose_arguments_it_knows():
    layout = Layout(0, 1, {0: {(0,): (0, 2)}}, {0: {(0,): 3, (1,): 1}})
    assert layout.covers(Shapes(3, 5, [], {0: {(0,): (6, 5, 5), (1,): (7,)}}))
    assert not layout.covers(Shapes(3, 5, [], {0: {(0,): (1, 5, 5), (1,): (7,)}}))
    assert not layout.covers(Shapes(3, 5, [], {0: {(1,): (7,)}}))
    assert not layout.covers(Shapes(3, 5, [], {0: {(0,): (6, 5, 5), (1,): (7, 1)}}))
    assert not layout.covers(Shapes(3, 5, [], {1: {(0,): (6, 5, 5), (1,): (7,)}}))


def test_what_has_no_rows_stays_the_same_object():
    layout = Layout(0, 1, {0: {(0, "x"): (0, 1), (0, "heads"): (0, 2)}})
    untouched = {"y": torch.zeros(3), "z": [torch.zeros(3)]}
    value = [{"x": torch.arange(3), "heads": torch.arange(6)}, untouched]
    cut = layout.first_rows(0, value, 2)
    assert cut[0]["x"].tolist() == [0, 1]
    assert cut[0]["heads"].tolist() == [0, 1, 2, 3]
    assert cut[1] is untouched
    assert value[0]["x"].tolist() == [0, 1, 2]


def test_shapes_are_found_in_nested_arguments():
    found = shapes_of([torch.zeros(2, 3), {"mask": (None, torch.zeros(1))}, "text"])
    assert found == {(0,): (2, 3), (1, "mask", 1): (1,)}
