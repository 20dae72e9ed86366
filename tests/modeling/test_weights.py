"""What the weights of a model are."""

from __future__ import annotations

import torch

from hf_layertracer.modeling.weights import main_dtype


def test_the_main_data_type_is_that_of_most_bytes_and_can_be_computed_in():
    narrow, wide = torch.zeros(5, dtype=torch.bfloat16), torch.zeros(2)
    assert main_dtype([narrow, wide]) is torch.bfloat16
    assert main_dtype([narrow, wide, wide]) is torch.float32
    packed = torch.zeros(100, dtype=torch.uint8)
    assert main_dtype([packed, narrow]) is torch.bfloat16
    assert main_dtype([packed]) is main_dtype([]) is torch.float32
