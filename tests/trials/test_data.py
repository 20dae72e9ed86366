"""Training blocks: what the evaluation reads, in the same form, and all of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_layertracer import LayerTracerError
from hf_layertracer.evaluation.blocks import document_blocks, start_token
from hf_layertracer.trials.data import Blocks, write_blocks


def _ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_block_begins_as_in_the_evaluation(tiny_tokenizer, tmp_path):
    text = "The capital city of France is Paris. " * 20
    (tmp_path / "text.txt").write_text(text)
    count = write_blocks([tmp_path / "text.txt"], tiny_tokenizer, 16, tmp_path / "blocks.npy")
    blocks = np.load(tmp_path / "blocks.npy")
    assert blocks.shape == (count, 16)
    evaluated = [block.input_ids for block in document_blocks(text, tiny_tokenizer, 15)]
    assert [tuple(row) for row in blocks.tolist()] == [ids for ids in evaluated if len(ids) == 16]
    assert set(blocks[:, 0]) == {start_token(tiny_tokenizer)}


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12), length=st.integers(2, 20))
def test_short_documents_share_blocks_and_nothing_but_the_end_is_left_out(
    tiny_tokenizer, tmp_path_factory, lengths, length
):
    folder = tmp_path_factory.mktemp("texts")
    texts = [" ".join(["cat"] * count) for count in lengths]
    (folder / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    begins = start_token(tiny_tokenizer)
    wanted = [token for text in texts for token in (begins, *_ids(tiny_tokenizer, text))][1:]
    if len(wanted) < length - 1:
        with pytest.raises(LayerTracerError, match="fewer than the"):
            write_blocks([folder / "texts.jsonl"], tiny_tokenizer, length, folder / "blocks.npy")
        return
    write_blocks([folder / "texts.jsonl"], tiny_tokenizer, length, folder / "blocks.npy")
    blocks = np.load(folder / "blocks.npy")
    found = blocks[:, 1:].ravel().tolist()
    assert found == wanted[: len(found)]
    assert len(wanted) - len(found) < length - 1


def test_every_run_of_a_seed_sees_the_same_sample(tiny_tokenizer, tmp_path):
    (tmp_path / "text.txt").write_text("The cat is an animal. " * 100)
    write_blocks([tmp_path / "text.txt"], tiny_tokenizer, 8, tmp_path / "blocks.npy")
    one, same, other = (Blocks(tmp_path / "blocks.npy", 12, seed) for seed in (0, 0, 1))
    rows = [[data[index]["input_ids"].tolist() for index in range(12)] for data in (one, same, other)]
    assert rows[0] == rows[1] != rows[2]
