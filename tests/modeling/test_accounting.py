from __future__ import annotations

import pytest
import torch
from support.profiling import profiled_peak

from hf_layertracer.modeling.accounting import peak_bytes


def test_what_lives_at_once_is_counted_and_what_is_gone_is_not():
    given = torch.zeros(1000)

    def work():
        a = given + 1  # 4000 bytes
        b = a.view(10, 100)[:5]  # none
        b = (b * 2).double()  # 2000, then 4000 more
        del a, b
        return given.clone()  # 4000

    assert peak_bytes(work) == 4000 + 2000 + 4000


def test_writing_into_what_there_was_costs_nothing():
    given = torch.zeros(1000)
    assert peak_bytes(lambda: given.add_(1).view(-1)[3:].zero_()) == 0


@pytest.mark.parametrize("name", ["Llama", "Mamba", "Mixtral"])
def test_a_forward_pass_is_counted_as_the_profiler_counts_it(make_model, name):
    model, ids = make_model(name), torch.arange(3, 43)[None]

    def work():
        with torch.no_grad():
            model(input_ids=ids, use_cache=False)

    work()
    assert peak_bytes(work) == pytest.approx(profiled_peak(work), rel=0.02)
