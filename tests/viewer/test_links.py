"""What an address says of a view, of any content."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_layertracer.viewer.app import build_app
from hf_layertracer.viewer.links import Linked, read_link


LINKED = {
    "report": Linked(None, ""),
    "compare": Linked(None, []),
    "probe": Linked(None, 0),
    "order": Linked(None, "as asked", choices=("as asked", "least")),
    "on": Linked(None, False),
}


def test_values_have_the_types_of_their_controls():
    query = "?report=user/name%40main&compare=a&compare=b%20c&probe=3&order=least&on=true&tab=compare&other=1"
    assert read_link(query, LINKED) == {
        "report": "user/name@main",
        "compare": ["a", "b c"],
        "probe": 3,
        "order": "least",
        "on": True,
        "tab": "compare",
    }


@pytest.mark.parametrize("query", ["", "?", "?probe=x", "?probe=nan", "?probe=1e99", "?order=<img>", "?probe="])
def test_what_means_nothing_is_left_out(query):
    assert read_link(query, LINKED) == {}


@given(st.text(), st.text())
def test_any_text_is_read_as_it_was_written(report, rest):
    assert (
        read_link(f"?report={quote(report)}&{rest[:50]}", LINKED).get("report", "") in (report, report + rest) or rest
    )
    read_link(rest, LINKED)


def test_names_of_controls_are_not_those_of_the_server():
    """Gradio reads these from an address for itself."""
    app = build_app([])
    script = next(fn.js for fn in app.fns.values() if fn.js and "layertracer.follow" in fn.js)
    for name in ("page", "view", "deep_link", "__theme", "__sign", "__lang"):
        assert f'"name": "{name}"' not in script
