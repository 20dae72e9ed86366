"""Text as people read and write it."""

from __future__ import annotations

import pytest
import torch

from hf_layertracer import LayerTracerError
from hf_layertracer.text import dtype_name, gibibytes, parse_bytes, with_error


@pytest.mark.parametrize(
    ("value", "stderr", "text"),
    [
        (0.0023, 0.0004, "0.0023 ± 0.0004"),
        (0.5, 0.02, "0.500 ± 0.020"),
        (-0.00002, 0.00001, "-0.00002 ± 0.00001"),
        (0.25, 0.0, "0.250 ± 0.000"),
        (0.0, 0.0, "0.000 ± 0.000"),
        (0.0004, None, "0.0004"),
        (0.3, 1e-30, "0.3000000 ± 0.0000000"),
    ],
)
def test_a_number_has_the_digits_that_its_error_leaves_a_meaning(value, stderr, text):
    assert with_error(value, stderr) == text


def test_data_types_are_written_as_in_configurations():
    assert dtype_name(torch.bfloat16) == "bfloat16"


def test_amounts_of_memory_are_written_and_read():
    assert gibibytes(0) == "0.00 GiB"
    assert parse_bytes("24GB") == parse_bytes("24 GiB") == parse_bytes(24 * 2**30) == 24 * 2**30
    for wrong in ("", "much", 1.5, True, None, "-3GB", 0, "9" * 6000):
        with pytest.raises(LayerTracerError, match="is no amount of memory"):
            parse_bytes(wrong)
