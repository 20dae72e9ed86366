"""The reports that a page can show."""

from __future__ import annotations

import pytest

from hf_layertracer.errors import LayerTracerError
from hf_layertracer.viewer import report_store as module
from hf_layertracer.viewer.report_store import ReportStore


def test_reports_are_read_when_they_are_first_looked_at_and_once(make_report, write_report):
    path = write_report(make_report(), "a")
    store = ReportStore({"a": path, "b": path.with_name("gone")})
    assert store.names({}) == ["a", "b"]
    assert store.report("a", {}) == make_report()
    path.unlink()
    assert store.report("a", {}) == make_report()
    with pytest.raises(LayerTracerError, match="Could not read a/gone"):
        store.report("b", {})


@pytest.mark.parametrize("name", [None, "", "c", "/etc/passwd", "../a"])
def test_what_is_not_on_it_is_never_opened(make_report, write_report, name):
    store = ReportStore({"a": write_report(make_report(), "a")})
    with pytest.raises(LayerTracerError, match="Choose a report"):
        store.report(name, {})


def test_what_a_visitor_opens_is_theirs_alone_and_limited(make_report, write_report):
    store = ReportStore({"a": write_report(make_report(), "a")})
    opened: dict = {}
    for number in range(20):
        label, opened = store.add(f"mine {number}", make_report(7), opened)
    assert label == "mine 19"
    assert list(opened) == [f"mine {number}" for number in range(19, 19 - module._OPENED_LIMIT, -1)]
    assert store.report("mine 19", opened).num_layers == 7
    assert store.names({}) == ["a"]
    with pytest.raises(LayerTracerError):
        store.report("mine 19", {})


def test_nothing_opened_takes_the_place_of_what_the_page_starts_with(make_report, write_report, markup):
    store = ReportStore({"a": write_report(make_report(), "a")})
    label, opened = store.add("a", make_report(7), {})
    assert label == "a (2)"
    assert store.report("a", opened).num_layers == 6
    assert len(store.add("x" * 500 + markup, make_report(), {})[0]) == module._NAME_LIMIT
