"""The demo's corpus: real text, the same on every run."""

from __future__ import annotations

from pathlib import Path

from hf_layertracer.demo.corpus import standard_library_docs, write_corpus
from hf_layertracer.documents import read_documents


def test_the_documents_are_the_standard_librarys_own_words():
    documents = standard_library_docs()
    assert len(documents) > 100
    assert any("dictionary" in document for document in documents)
    assert all(len(document) >= 400 for document in documents)


def test_every_eighth_document_is_held_out(tmp_path: Path):
    documents = [f"text {number}\u2028 of a module" for number in range(20)]
    train, held_out = (list(read_documents(path)) for path in write_corpus(documents, tmp_path))
    assert held_out == documents[::8]
    assert sorted(train + held_out) == sorted(documents)
