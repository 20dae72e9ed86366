"""The page of a trial's results."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hf_layertracer.errors import LayerTracerError
from hf_layertracer.report.palette import GREY
from hf_layertracer.viewer.tabs.trials import _shown, parse_results, trade_off


@pytest.fixture
def content() -> dict[str, Any]:
    metrics = {
        "title": "All metrics",
        "columns": ["arm", "new/bits_per_byte", "quiz/acc"],
        "rows": [["chance", "", "0.2500"], ["n", "40", "200"], ["base", "2.0000", "0.2600"], ["full", "1.6", "0.3"]],
        "caption": "Grey: the untouched model is at chance there (quiz/acc).",
        "grey": [2],
    }
    change = {"value": 0.4, "low": 0.3, "high": 0.6}
    points = {"full": [change, {"value": 0.2, "low": None, "high": None}]}
    return {
        "rows": [{"arm": "full"}],
        "tables": [metrics],
        "trade_off": {"learn": "new/bits_per_byte", "forget": "quiz/acc", "at_chance": [], "points": points},
        "missing": ["lora-seed0"],
        "notes": ["Short data."],
    }


def _bytes(content: Any) -> bytes:
    return json.dumps(content).encode()


def test_the_picture_has_a_point_an_arm_with_its_interval(content):
    base, full = trade_off(parse_results(_bytes(content)).trade_off).data
    assert (base.x, base.y) == ((0,), (0,))
    assert (full.x, full.y) == ((0.2,), (0.4,))
    assert (full.error_y.array, full.error_y.arrayminus) == (pytest.approx((0.2,)), pytest.approx((0.1,)))
    assert full.error_x.visible is False, "an interval that is not known"
    assert full.marker.color != GREY


def test_where_the_objective_is_at_chance_the_picture_is_grey_and_says_so(content):
    content["trade_off"]["at_chance"] = ["quiz/acc"]
    figure = trade_off(parse_results(_bytes(content)).trade_off)
    assert figure.data[1].marker.color == GREY
    assert "at chance on quiz/acc" in figure.layout.title.text.replace("<br>", " ")


def test_without_points_there_is_no_picture(content):
    content["trade_off"] = None
    assert not _shown(lambda: _bytes(content))[1]["visible"]


def test_what_is_shown_has_chance_n_and_what_says_nothing_in_grey(content):
    message, chart, tables = _shown(lambda: _bytes(content))
    assert "1 runs are not finished" in message
    assert chart["visible"]
    for part in ("chance", ">n<", "base", "at chance there (quiz/acc)", '<td class="lt-grey">0.2500'):
        assert part in tables
    assert tables.count("lt-grey") == 5, "the column of the quiz and its heading"


def test_a_file_without_tables_says_how_to_write_them(content):
    del content["tables"], content["trade_off"]
    with pytest.raises(LayerTracerError, match=r"of an earlier version .* TrialsResult.load\(folder\).save\(folder\)"):
        parse_results(_bytes(content))


@pytest.mark.parametrize("broken", [b"", b"[", b"{}", b'{"rows": []}', b"[" * 100_000, b" " * 2**24])
def test_a_file_that_holds_no_results_is_one_line(broken):
    with pytest.raises(LayerTracerError) as raised:
        parse_results(broken)
    assert "\n" not in str(raised.value)
    message, chart, *tables = _shown(lambda: broken)
    assert "lt-error" in message or "error" in message
    assert not chart["visible"]
    assert tables == [""]


def test_markup_in_a_file_is_text_on_the_page(content, markup):
    content["tables"][0] |= {"title": markup, "caption": markup, "columns": [markup] * 3, "rows": [[markup] * 3]}
    points = {markup: content["trade_off"]["points"]["full"]}
    content["trade_off"] = {"learn": markup, "forget": markup, "at_chance": [markup], "points": points}
    content["notes"] = [markup]
    shown = _shown(lambda: _bytes(content))
    page = "".join(part for part in shown if isinstance(part, str))
    if "<" in markup:
        assert markup not in page
