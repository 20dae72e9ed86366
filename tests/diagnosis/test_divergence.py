from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_layertracer.diagnosis.divergence import jensen_shannon


LOGIT = st.one_of(st.floats(-60, 60), st.just(-math.inf))


@st.composite
def pairs_of_logits(draw):
    size = draw(st.integers(1, 12))
    vectors = [draw(st.lists(LOGIT, min_size=size, max_size=size)) for _ in range(2)]
    for vector in vectors:
        vector[draw(st.integers(0, size - 1))] = draw(st.floats(-60, 60))
    return vectors


def tensors(vectors, dtype=torch.float64):
    return [torch.tensor(vector, dtype=dtype) for vector in vectors]


@given(pairs_of_logits())
def test_the_divergence_agrees_with_its_definition(reference, vectors):
    expected = reference.jensen_shannon(*vectors)
    assert float(jensen_shannon(*tensors(vectors))) == pytest.approx(expected, abs=1e-12)
    assert float(jensen_shannon(*tensors(vectors, torch.float32))) == pytest.approx(expected, abs=2e-5)


@given(pairs_of_logits())
def test_the_divergence_is_symmetric_and_between_0_and_1(vectors):
    p, q = tensors(vectors, torch.float32)
    value = float(jensen_shannon(p, q))
    assert 0 <= value <= 1
    assert float(jensen_shannon(q, p)) == pytest.approx(value, abs=1e-6)


@given(pairs_of_logits(), st.floats(-100, 100))
def test_a_distribution_diverges_from_itself_by_nothing(vectors, shift):
    p, _ = tensors(vectors)
    assert float(jensen_shannon(p, p)) == pytest.approx(0, abs=1e-12)
    # Logits mean the same up to a constant.
    assert float(jensen_shannon(p, p + shift)) == pytest.approx(0, abs=1e-12)


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=6), st.lists(st.floats(-20, 20), min_size=1, max_size=6))
def test_disjoint_supports_diverge_by_exactly_one_bit(left, right):
    p = torch.tensor(left + [-math.inf] * len(right), dtype=torch.float64)
    q = torch.tensor([-math.inf] * len(left) + right, dtype=torch.float64)
    assert float(jensen_shannon(p, q)) == pytest.approx(1, abs=1e-12)


def test_a_known_value_is_in_bits():
    # p = (1, 0), q = (1/2, 1/2): JS = 3/4 log2(4/3) + 1/4 log2(2) - ... = 0.31127812...
    p, q = torch.tensor([0.0, -math.inf]), torch.tensor([0.0, 0.0])
    assert float(jensen_shannon(p, q)) == pytest.approx(1.5 - 0.75 * math.log2(3), abs=1e-6)


def test_batches_are_compared_row_by_row_and_broadcast():
    torch.manual_seed(0)
    p, q = torch.randn(3, 1, 7, dtype=torch.float64), torch.randn(4, 7, dtype=torch.float64)
    together = jensen_shannon(p, q)
    assert together.shape == (3, 4)
    for i in range(3):
        for j in range(4):
            assert float(together[i, j]) == pytest.approx(float(jensen_shannon(p[i, 0], q[j])), abs=1e-14)


def test_small_divergences_over_a_large_vocabulary_survive_float32(reference):
    # 150 000 tokens, as Qwen has: rounding must not drown what a weak perturbation does.
    torch.manual_seed(0)
    p = 3 * torch.randn(150_000)
    q = p + 0.02 * torch.randn(150_000)
    expected = reference.jensen_shannon(p.tolist(), q.tolist())
    assert expected < 1e-3
    assert float(jensen_shannon(p, q)) == pytest.approx(expected, abs=1e-6)


def test_over_the_largest_vocabularies_it_is_exact(reference):
    rng = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(262_144, generator=rng)
    for change in (1e-4, 0.5):
        moved = logits + change * torch.randn(262_144, generator=rng)
        expected = reference.jensen_shannon(logits.tolist(), moved.tolist())
        assert float(jensen_shannon(logits, moved)) == pytest.approx(expected, abs=1e-7, rel=1e-6)


def test_many_rows_are_worth_what_each_of_them_is():
    p, q = torch.randn(2, 3, 1, 120_000, generator=torch.Generator().manual_seed(0))
    q = q.view(1, 3, 120_000)
    found = jensen_shannon(p, q)
    assert found.shape == (3, 3)
    one_by_one = torch.stack([torch.stack([jensen_shannon(a[0], b) for b in q[0]]) for a in p])
    assert torch.allclose(found, one_by_one, atol=1e-12)
