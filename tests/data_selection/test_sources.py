from __future__ import annotations

import json

import pytest
from datasets import Dataset
from hypothesis import given, settings, strategies

from hf_layertracer.data_selection.sources import cut_at_lines, stream_pieces
from hf_layertracer.errors import LayerTracerError


@settings(max_examples=100, deadline=None)
@given(text=strategies.text(alphabet="ab中 \n", max_size=200), length=strategies.integers(1, 30))
def test_pieces_are_the_text_again(text, length):
    pieces = list(cut_at_lines(text.splitlines(keepends=True), length))
    assert all(len(piece) <= length for piece in pieces)
    assert all(piece.strip() for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


def test_a_piece_ends_with_a_line_where_it_can():
    assert list(cut_at_lines(["one\n", "two\n", "three four\n"], 9)) == ["one\ntwo\n", "three fou", "r\n"]


def test_text_json_lines_and_tables_stream_in_order(tmp_path):
    (tmp_path / "a.txt").write_text("first\nsecond\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text(json.dumps({"content": "third"}) + "\n", encoding="utf-8")
    Dataset.from_dict({"id": [1, 2], "text": ["fourth", "fifth"]}).to_parquet(tmp_path / "c.parquet")
    (tmp_path / "d.csv").write_text("text,label\nsixth,1\n", encoding="utf-8")
    files = [str(tmp_path / name) for name in ("a.txt", "b.jsonl", "c.parquet", "d.csv")]
    stream = stream_pieces(files, 100)
    texts = [row["text"] for row in stream]
    assert texts == ["first\nsecond\n", "third", "fourth", "fifth", "sixth"]
    assert [row["text"] for row in stream.skip(3)] == texts[3:]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"label\n1\n", "has no column of text: one of text, content, document"),
        ("a.txt", b"\xff\xfe", "no UTF-8 text"),
        ("a.jsonl", b"{}\n", "line 1 holds no text"),
        ("a.parquet", b"nonsense", "Could not read the dataset"),
    ],
)
def test_a_source_that_cannot_be_read_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LayerTracerError, match=message):
        list(stream_pieces([str(tmp_path / name)], 100))
