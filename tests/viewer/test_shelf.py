"""The reports that a page can show."""

from __future__ import annotations

import pytest

from hf_layertracer.errors import LayerTracerError
from hf_layertracer.viewer import shelf as module
from hf_layertracer.viewer.shelf import Shelf


def test_reports_are_read_when_they_are_first_looked_at_and_once(make_report, write_report):
    path = write_report(make_report(), "a")
    shelf = Shelf({"a": path, "b": path.with_name("gone")})
    assert shelf.names({}) == ["a", "b"]
    assert shelf.report("a", {}) == make_report()
    path.unlink()
    assert shelf.report("a", {}) == make_report()
    with pytest.raises(LayerTracerError, match="Could not read b"):
        shelf.report("b", {})


@pytest.mark.parametrize("name", [None, "", "c", "/etc/passwd", "../a"])
def test_what_is_not_on_it_is_never_opened(make_report, write_report, name):
    shelf = Shelf({"a": write_report(make_report(), "a")})
    with pytest.raises(LayerTracerError, match="Choose a report"):
        shelf.report(name, {})


def test_what_a_visitor_opens_is_theirs_alone_and_limited(make_report, write_report):
    shelf = Shelf({"a": write_report(make_report(), "a")})
    opened: dict = {}
    for number in range(20):
        label, opened = shelf.add(f"mine {number}", make_report(7), opened)
    assert label == "mine 19"
    assert len(opened) <= module._OPENED_LIMIT
    assert shelf.report("mine 19", opened).num_layers == 7
    assert shelf.names({}) == ["a"]
    with pytest.raises(LayerTracerError):
        shelf.report("mine 19", {})


def test_nothing_opened_takes_the_place_of_what_the_page_starts_with(make_report, write_report, markup):
    shelf = Shelf({"a": write_report(make_report(), "a")})
    label, opened = shelf.add("a", make_report(7), {})
    assert label == "a (opened)"
    assert shelf.report("a", opened).num_layers == 6
    assert len(shelf.add("x" * 500 + markup, make_report(), {})[0]) == 60
