from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_layertracer.config import DiagnosisConfig
from hf_layertracer.diagnosis.layer_stack import LayerStack
from hf_layertracer.diagnosis.memory import GIB, BatchPlan, default_budget, plan_batches
from hf_layertracer.errors import LayerTracerError
from hf_layertracer.modeling import find_parts


SIZES = st.integers(1, 10**6)


@given(st.integers(1, 10**10), SIZES, SIZES, SIZES, st.integers(1, 20_000), st.integers(1, 3000))
def test_a_plan_stays_within_its_budget_and_its_tokens_and_never_stops(budget, token, row, state, tokens, length):
    plan = BatchPlan(budget, token, row, state, tokens)
    probes, rows = plan.probes(length), plan.rows(length)
    assert probes >= 1
    assert rows >= 1
    if probes > 1:
        # Half of the budget is for a clean run and what it leaves behind, half for the perturbed rows.
        assert probes * (length * (token + state) + row) <= budget / 2
        assert probes * length <= tokens
    if rows > 1:
        assert rows * (length * token + row) <= budget / 2
        assert rows * length <= tokens
    if length > 1:
        assert plan.probes(length - 1) >= probes
        assert plan.rows(length - 1) >= rows


def plan_for(model, length=6, **settings):
    stack = LayerStack(find_parts(model))
    with torch.no_grad():
        clean = stack.run(torch.arange(3, 3 + length)[None])
        return plan_batches(stack, clean, DiagnosisConfig(**{"memory_budget": 1 << 30, **settings}))


def test_the_hidden_states_of_a_clean_run_are_counted_exactly(any_model):
    plan = plan_for(any_model)
    assert plan.budget == 1 << 30
    assert plan.state_bytes_per_token == 5 * 32 * 4
    # Logits in float32, and something for the divergence beside them.
    assert plan.bytes_per_row >= 320 * 4 * 3
    # One answer, perturbed and batched, and what a layer computes inside.
    assert plan.bytes_per_token > 4 * 32 * 4


def test_wider_data_types_need_more(tiny_llama):
    narrow, wide = plan_for(tiny_llama()), plan_for(tiny_llama().double())
    assert wide.state_bytes_per_token == 2 * narrow.state_bytes_per_token
    assert 1.5 * narrow.bytes_per_token < wide.bytes_per_token <= 2 * narrow.bytes_per_token


def test_a_budget_too_small_for_one_probe_says_how_much_is_needed(tiny_llama):
    with pytest.raises(LayerTracerError, match=r"memory_budget=1000 is too small: one probe of 6 tokens.* \d+ bytes"):
        plan_for(tiny_llama(), memory_budget=1000)


def test_the_budget_is_half_of_what_is_free_and_at_most_4_gib(monkeypatch):
    from hf_layertracer.modeling import devices

    for free, expected in ((2 * GIB, GIB), (100 * GIB, 4 * GIB)):
        monkeypatch.setattr(
            devices.psutil, "virtual_memory", lambda free=free: type("Memory", (), {"available": free})()
        )
        assert default_budget(torch.device("cpu")) == expected
