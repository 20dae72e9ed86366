"""Text files as documents, and what is said of those that hold none."""

from __future__ import annotations

import pytest

from hf_layertracer import LayerTracerError
from hf_layertracer.documents import read_documents


def test_a_line_is_a_document_and_any_other_file_is_one(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "One\\ntwo"}\n\n{"content": "three"}\n')
    (tmp_path / "a.txt").write_text("One\n\ntwo\n")
    assert list(read_documents(tmp_path / "a.jsonl")) == ["One\ntwo", "three"]
    assert list(read_documents(tmp_path / "a.txt")) == ["One\n\ntwo\n"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "\\ud800"}', "a.jsonl, line 2: the text holds half a character"),
        ('{"text": 3}', "a.jsonl, line 2 holds no text under any of text, content, document"),
        ('{"text"}', "a.jsonl, line 2 is no JSON"),
    ],
)
def test_a_line_that_is_no_document_is_named(tmp_path, line, message):
    (tmp_path / "a.jsonl").write_text(f'{{"text": "One"}}\n{line}\n')
    with pytest.raises(LayerTracerError, match=message):
        list(read_documents(tmp_path / "a.jsonl"))
