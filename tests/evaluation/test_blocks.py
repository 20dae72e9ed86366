from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings, strategies

from hf_layertracer.errors import LayerTracerError
from hf_layertracer.evaluation.blocks import text_blocks


TEXT = "The capital of France is Paris. 中国的首都是北京。 A cat 🐈 is an animal.\n\n  def add(a, b): return a + b  \n"


def write(folder: Path, text: str, name: str = "text.txt") -> str:
    path = folder / name
    path.write_bytes(text.encode())
    return str(path)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 1000])
def test_blocks_hold_every_token_once_and_their_bytes_add_up(tmp_path, tiny_tokenizer, length):
    blocks = text_blocks([write(tmp_path, TEXT)], tiny_tokenizer, length)
    assert [token for block in blocks for token in block.input_ids[1:]] == tiny_tokenizer(TEXT)["input_ids"]
    assert sum(block.bytes for block in blocks) == len(TEXT.encode())
    assert all(block.input_ids[0] == tiny_tokenizer.bos_token_id for block in blocks)
    assert max(block.tokens for block in blocks) <= length
    assert len({block.item for block in blocks}) == len(blocks)


@settings(max_examples=60, deadline=None)
@given(text=strategies.text(min_size=1).filter(lambda text: text.strip()), length=strategies.integers(4, 9))
def test_a_block_of_four_tokens_or_more_is_text_of_as_many_bytes(tmp_path_factory, make_tokenizer, text, length):
    tokenizer = make_tokenizer()
    text = text.encode("utf-8", "ignore").decode()
    if not text.strip():
        return
    blocks = text_blocks([write(tmp_path_factory.mktemp("any"), text)], tokenizer, length)
    # A character has at most four bytes, so none needs to be cut.
    assert [len(tokenizer.decode(block.input_ids[1:]).encode()) for block in blocks] == [b.bytes for b in blocks]


def test_a_limit_spreads_over_all_files(tmp_path, tiny_tokenizer):
    files = [write(tmp_path, TEXT * 3, name) for name in ("a.txt", "b.txt")]
    everything = text_blocks(files, tiny_tokenizer, 8)
    some = text_blocks(files, tiny_tokenizer, 8, limit=6)
    assert len(some) == 6
    assert some[0] == everything[0]
    assert set(some) <= set(everything)
    assert [block.group for block in some] == ["0:0"] * 3 + ["1:0"] * 3


def test_items_are_told_by_the_place_of_their_file_and_not_by_its_name(tmp_path, tiny_tokenizer):
    for folder in ("da", "db"):
        (tmp_path / folder).mkdir()
    files = [write(tmp_path / folder, TEXT, "test.txt") for folder in ("da", "db")]
    blocks = text_blocks(files, tiny_tokenizer, 8)
    assert len({block.item for block in blocks}) == len(blocks)
    assert len({block.group for block in blocks}) == 2
    renamed = [write(tmp_path, TEXT, name) for name in ("one.txt", "two.txt")]
    assert text_blocks(renamed, tiny_tokenizer, 8) == blocks


def test_documents_of_two_files_of_one_name_are_two(tmp_path, tiny_tokenizer):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    files = [write(tmp_path / folder, TEXT) for folder in ("a", "b")]
    blocks = text_blocks(files, tiny_tokenizer, 8)
    assert {block.group for block in blocks} == {"0:0", "1:0"}
    assert len({block.item for block in blocks}) == len(blocks)


def test_a_document_of_a_jsonl_file_is_not_joined_with_the_next(tmp_path, tiny_tokenizer):
    path = write(tmp_path, '{"text": "One, two."}\n\n{"content": "Rome is the capital."}\n', "docs.jsonl")
    assert [tiny_tokenizer.decode(block.input_ids[1:]) for block in text_blocks([path], tiny_tokenizer, 500)] == [
        "One, two.",
        "Rome is the capital.",
    ]


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b" \n", "text.txt", "no text to evaluate on in .*text.txt"),
        (b"a\xff", "text.txt", "no UTF-8 text: invalid start byte at byte 1"),
        (b'{"text": "a"}\n{"label": 1}\n', "docs.jsonl", "line 2 holds no text under any of text, content"),
        (b'{"text": "a"\n', "docs.jsonl", "line 1 is no JSON"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, tiny_tokenizer, content, name, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LayerTracerError, match=message):
        text_blocks([str(tmp_path / name)], tiny_tokenizer, 8)
