from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_layertracer import LayerTracerError
from hf_layertracer.estimate.devices import GIB, find_device, parse_bytes


@pytest.mark.parametrize("name", ["H100 80GB", "h100-80gb", "NVIDIA H100 80GB", "h100_80GB"])
def test_a_device_is_found_however_it_is_written(name):
    assert find_device(name).memory_bytes == 80 * GIB


def test_a_rate_is_that_of_the_data_type():
    device = find_device("A100 80GB")
    assert (device.rate(half=True), device.rate(half=False)) == (312e12, 19.5e12)
    assert find_device("24GB").rate(half=True) is None


@pytest.mark.parametrize(
    ("size", "expected"),
    [("24GB", 24 * GIB), ("24 GiB", 24 * GIB), ("512MiB", 512 << 20), ("1.5g", 3 * GIB // 2), (1000, 1000), ("7B", 7)],
)
def test_amounts_of_memory_are_read(size, expected):
    assert parse_bytes(size) == expected


@given(st.text(max_size=20))
def test_any_text_is_an_amount_or_one_clear_line(text):
    try:
        found = parse_bytes(text)
    except LayerTracerError:
        return
    assert found > 0
