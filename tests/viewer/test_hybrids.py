"""Where the layers of a hybrid come from, as the page shows it."""

from __future__ import annotations

import pytest

from hf_layertracer.errors import LayerTracerError
from hf_layertracer.hybrid.provenance import HYBRID_FILE, HybridRecord, LayerOrigin
from hf_layertracer.viewer import hybrids
from hf_layertracer.viewer.hub_places import HubPlace
from hf_layertracer.viewer.hybrids import hybrid_figure, parse_hybrid, read_hybrid
from hf_layertracer.viewer.report_store import ReportStore
from hf_layertracer.viewer.tabs.hybrid import _hybrid, _uploaded


def make_record(layers: int = 6, text: str = "org/b") -> HybridRecord:
    origins = [
        LayerOrigin(
            layer=layer,
            donor="org/a" if layer < 4 else text,
            donor_layer=layer,
            kind="mamba" if layer == 2 else "full_attention",
            mixer="mamba2" if layer == 2 else None,
            init="from_attention" if layer == 2 else None,
            sha256="0" * 64,
            verified=f"equal {text}",
        )
        for layer in range(layers)
    ]
    return HybridRecord(architecture="X", base="org/a", dtype="float32", recipe={}, layers=origins, tokenizer="org/a")


def test_the_stack_is_coloured_by_donor_and_by_kind_under_the_sensitivity(make_report):
    report = make_report(6)
    figure = hybrid_figure(make_record(), report)
    by_row = {axis: [t for t in figure.data if t.yaxis == axis] for axis in ("y", "y2", "y3")}
    assert [list(trace.y) for trace in by_row["y"]] == [report.first.sensitivity.mean]
    assert {trace.name: list(trace.x) for trace in by_row["y2"]} == {"org/a": [0, 1, 2, 3], "org/b": [4, 5]}
    assert {trace.name: list(trace.x) for trace in by_row["y3"]} == {"full_attention": [0, 1, 3, 4, 5], "mamba": [2]}
    assert list(by_row["y2"][0].marker.pattern.shape) == ["", "", "/", ""]
    assert "new mixer: mamba2, from_attention" in by_row["y2"][0].hovertext[2]
    for other in (None, make_report(7)):
        assert len({trace.yaxis for trace in hybrid_figure(make_record(), other).data}) == 2


def test_the_record_beside_a_report_is_read(make_report, write_report):
    path = write_report(make_report(6), "hybrid")
    store = ReportStore({"hybrid": path})
    assert read_hybrid(path) is None
    assert "is not a hybrid" in _hybrid(store, "hybrid", {})[0]
    (path.parent / HYBRID_FILE).write_text(make_record().model_dump_json())
    message, stack, table = _hybrid(store, "hybrid", {})
    assert "X of 6 layers from org/a, org/b" in message
    assert stack["visible"]
    assert "org/b" in table
    assert "no longer open" in _hybrid(store, "gone", {})[0]


def test_the_record_on_the_hub_is_read_without_a_token(hub, make_report):
    from huggingface_hub import HfApi

    from hf_layertracer.hub import push_report

    for repo, private in (("alice/hybrid", False), ("alice/secret", True)):
        push_report(make_report(6), repo, private=private)
        HfApi().upload_file(
            path_or_fileobj=make_record().model_dump_json().encode(), path_in_repo=HYBRID_FILE, repo_id=repo
        )
    assert read_hybrid(HubPlace(None, "alice/hybrid")) == make_record()
    assert read_hybrid(HubPlace(None, "alice/secret")) is None
    assert read_hybrid(HubPlace(None, "alice/secret"), token=True) == make_record()


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 100_000, b'{"schema_version": 9}', b"\xff"])
def test_what_is_no_record_is_one_line(content):
    with pytest.raises(LayerTracerError, match="not the record of a hybrid") as caught:
        parse_hybrid(content)
    assert "\n" not in str(caught.value)


def test_a_record_of_too_many_layers_is_refused(monkeypatch):
    monkeypatch.setattr(hybrids, "MAX_LAYERS", 5)
    with pytest.raises(LayerTracerError, match="1 to 5 can be shown"):
        parse_hybrid(make_record(6).model_dump_json().encode())


def test_a_hybrid_of_a_thousand_donors_is_drawn_in_few_colours():
    record = make_record(1000)
    layers = [layer.model_copy(update={"donor": f"org/{layer.layer}"}) for layer in record.layers]
    figure = hybrid_figure(record.model_copy(update={"layers": layers}), None)
    donors = [trace for trace in figure.data if trace.yaxis == "y"]
    assert len(donors) == 13
    assert sorted(layer for trace in donors for layer in trace.x) == list(range(1000))
    assert donors[-1].name == "others"
    assert "org/999" in donors[-1].hovertext[-1]


def test_numbers_of_any_size_are_text(make_report):
    record = make_record(3)
    layers = [layer.model_copy(update={"layer": -(10**200), "donor_layer": 10**3000}) for layer in record.layers]
    content = record.model_copy(update={"layers": layers}).model_dump_json().encode()
    message, stack, table = _uploaded(ReportStore({}), content, None, {})
    assert "3 layers" in message
    assert stack["visible"]
    assert len(table) < 5000


def test_nothing_of_a_record_is_markup(markup, make_report, write_report):
    content = make_record(text=markup).model_dump_json().encode()
    message, stack, table = _uploaded(ReportStore({}), content, None, {})
    for html in (message, table):
        assert "<img" not in html
        assert "<script" not in html
    assert "<script" not in stack["value"].plot
    assert "<img" not in stack["value"].plot
