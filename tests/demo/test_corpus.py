"""The demo's corpus: real text, the same on every run."""

from __future__ import annotations

from hf_layertracer.demo.corpus import standard_library_docs, token_blocks


def test_the_documents_are_the_standard_librarys_own_words():
    documents = standard_library_docs()
    assert len(documents) > 100
    assert any("Return a JSON string representation" in document or "JSON" in document for document in documents)
    assert documents == standard_library_docs()


def test_blocks_have_one_length_and_stay_within_a_document(tiny_tokenizer):
    documents = ["the cat sat on the mat " * 20, "short"]
    blocks = token_blocks(documents, tiny_tokenizer, length=8, count=5, seed=1)
    ids = tiny_tokenizer(documents[0])["input_ids"]
    starts = {tuple(ids[start : start + 8]) for start in range(0, len(ids), 8)}
    assert len(blocks) == 5
    assert all(tuple(block) in starts for block in blocks)
    assert blocks == token_blocks(documents, tiny_tokenizer, length=8, count=5, seed=1)
    assert blocks != token_blocks(documents, tiny_tokenizer, length=8, count=5, seed=2)
