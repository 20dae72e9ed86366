"""The page of a trial's results."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hf_layertracer.errors import LayerTracerError
from hf_layertracer.viewer.tabs.trials import _shown, cost_table, metric_table, parse_results, trade_off


def _run(arm: str, seed: int | None, new: float, old: float) -> dict[str, Any]:
    cost = {"trainable_parameters": 2_000_000, "tokens_per_second": 10.0, "peak_memory_bytes": 2**21, "flops": None}
    return {"arm": arm, "seed": seed, "metrics": {"new/bits_per_byte": new, "old/bits_per_byte": old}, "cost": cost}


@pytest.fixture
def content() -> dict[str, Any]:
    rows = [_run("full", 0, 1.5, 1.1), _run("full", 1, 1.7, 1.3), _run("base", None, 2.0, 1.0)]
    return {"rows": rows, "machine": "a test", "missing": ["lora-seed0"], "notes": ["Short data."], "config": {}}


def _bytes(content: Any) -> bytes:
    return json.dumps(content).encode()


def test_metrics_are_means_with_the_error_of_seeds_and_the_untouched_model_is_first(content):
    header, rows = metric_table(parse_results(_bytes(content)))
    assert header == ["arm", "runs", "new/bits_per_byte", "old/bits_per_byte"]
    assert rows == [["base", "1", "2.0000", "1.0000"], ["full", "2", "1.6000 ± 0.1000", "1.2000 ± 0.1000"]]


def test_cost_is_of_what_was_trained(content):
    header, rows = cost_table(parse_results(_bytes(content)))
    assert rows == [["full", "2", "10", "2", "", ""]]
    assert len(header) == 6


def test_the_picture_has_a_point_a_run(content):
    figure = trade_off(parse_results(_bytes(content)))
    base, full = figure.data
    assert (base.x, base.y) == ((0.0,), (0.0,))
    assert full.x == pytest.approx((0.1, 0.3))
    assert full.y == pytest.approx((0.5, 0.3))


def test_without_an_untouched_model_there_is_no_picture(content):
    content["rows"].pop()
    assert trade_off(parse_results(_bytes(content))) is None


def test_what_is_shown_names_what_is_missing(content):
    message, chart, metrics, costs = _shown(lambda: _bytes(content))
    assert "1 runs are not finished" in message
    assert chart["visible"]
    assert "full" in metrics
    assert "a test" in costs


@pytest.mark.parametrize("broken", [b"", b"[", b"{}", b'{"rows": []}', b"[" * 100_000, b" " * 2**24])
def test_a_file_that_holds_no_results_is_one_line(broken):
    with pytest.raises(LayerTracerError) as raised:
        parse_results(broken)
    assert "\n" not in str(raised.value)
    message, chart, *tables = _shown(lambda: broken)
    assert "lt-error" in message or "error" in message
    assert not chart["visible"]
    assert tables == ["", ""]


def test_markup_in_a_file_is_text_on_the_page(content, markup):
    for row in content["rows"][:2]:
        row["arm"] = markup[:80]
        row["metrics"] = {markup: 1.0, **row["metrics"]}
    content |= {"machine": markup, "notes": [markup], "config": {"objective": {"learn": markup, "forget": markup}}}
    shown = _shown(lambda: _bytes(content))
    page = "".join(part for part in shown if isinstance(part, str))
    if "<" in markup:
        assert markup not in page
