from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from hf_layertracer.errors import LayerTracerError
from hf_layertracer.probes import Probe
from hf_layertracer.probes.encoding import EncodedProbe, encode_probes, equal_length_batches, probes_hash


# Letters are tokens, and "a" followed by "b" is always the one token "ab".
MERGING = PreTrainedTokenizerFast(
    tokenizer_object=Tokenizer(models.BPE({"x": 0, "a": 1, "b": 2, "ab": 3, "c": 4}, [("a", "b")]))
)


def ids(tokenizer, text):
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_a_prompt_is_followed_by_the_first_token_of_its_target(tiny_tokenizer):
    prompt, target = "The capital city of France is", " Paris."
    (encoded,) = encode_probes([Probe(prompt, target, "facts")], tiny_tokenizer)
    assert encoded == EncodedProbe(ids(tiny_tokenizer, prompt), ids(tiny_tokenizer, target)[0], "facts")
    joint = tiny_tokenizer(prompt + target)["input_ids"]
    assert joint[: len(encoded.input_ids) + 1] == [*encoded.input_ids, encoded.target_id]


def test_chinese_text_needs_no_space(tiny_tokenizer):
    (encoded,) = encode_probes([Probe("中国的首都是", "北京")], tiny_tokenizer)
    assert (*encoded.input_ids, encoded.target_id) == ids(tiny_tokenizer, "中国的首都是北京")[
        : len(encoded.input_ids) + 1
    ]


def test_a_merged_target_moves_the_boundary_back_to_the_last_shared_token():
    (encoded,) = encode_probes([Probe("xa", "bc")], MERGING)
    assert encoded == EncodedProbe((0,), 3, "default", moved=True)


def test_a_target_that_merges_with_the_whole_prompt_is_refused():
    with pytest.raises(LayerTracerError, match="merges the target 'b' with the whole prompt"):
        encode_probes([Probe("a", "b")], MERGING)


@pytest.mark.parametrize("template", ["<s> $A", "$A </s>", "<s> $A </s>", "<s> <pad> $A </s> <pad>"])
def test_special_tokens_around_a_text_end_no_prompt_and_are_no_target(make_tokenizer, tiny_tokenizer, template):
    before = template.split("$A")[0].split()
    tokenizer = make_tokenizer(template)
    (encoded,) = encode_probes([Probe("Rome is the", " capital")], tokenizer)
    (plain,) = encode_probes([Probe("Rome is the", " capital")], tiny_tokenizer)
    assert encoded.input_ids == (*tokenizer.convert_tokens_to_ids(before), *plain.input_ids)
    assert encoded.target_id == plain.target_id


@pytest.mark.parametrize("template", [None, "<s> $A", "<s> $A </s>"])
def test_a_special_token_at_the_end_of_the_prompt_stays_there(make_tokenizer, template):
    # Chat prompts end in one: were it taken for the tokenizer's own ending, the probe would ask for it.
    tokenizer = make_tokenizer(template)
    (encoded,) = encode_probes([Probe("Rome is<|answer|>", "Paris")], tokenizer)
    assert encoded.input_ids[-1] == tokenizer.convert_tokens_to_ids("<|answer|>")
    assert encoded.target_id == ids(tokenizer, "Paris")[0]


@pytest.mark.parametrize("template", [None, "<s> $A", "<s> $A </s>"])
def test_a_special_token_can_be_the_target(make_tokenizer, template):
    tokenizer = make_tokenizer(template)
    (encoded,) = encode_probes([Probe("Rome is the capital.", "</s>")], tokenizer)
    assert encoded.target_id == tokenizer.eos_token_id
    assert encoded.input_ids[-1] == ids(tokenizer, "Rome is the capital.")[-1]


def test_a_target_that_the_tokenizer_drops_is_refused(make_tokenizer):
    # With its own ending, the first new token would be that ending.
    from tokenizers import normalizers

    for template in (None, "<s> $A </s>"):
        tokenizer = make_tokenizer(template)
        tokenizer.backend_tokenizer.normalizer = normalizers.Strip()
        with pytest.raises(LayerTracerError, match="adds no token to the prompt"):
            encode_probes([Probe("Rome is", "   ")], tokenizer)


def test_merging_with_the_prompt_behind_a_special_token_is_still_refused(make_tokenizer):
    tokenizer = make_tokenizer("<s> $A")
    word = next(t for t in (" capital", " is", " the") if len(ids(tokenizer, t)) == 1)
    head, tail = word[:-1], word[-1]
    with pytest.raises(LayerTracerError, match="merges the target"):
        encode_probes([Probe(head, tail)], tokenizer)


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        (Probe("", " x"), "empty prompt"),
        (Probe("  \n", " x"), "empty prompt"),
        (Probe((), 3), "empty prompt"),
        (Probe("Rome is", ""), "empty target"),
        (Probe("Rome is", 3), "mixes text and token ids"),
        (Probe((1, 2), " x"), "mixes text and token ids"),
        (Probe((1, 2, 3, 4, 5, 6, 7), 1), "7 tokens long.* context is 6"),
    ],
)
def test_a_probe_that_cannot_be_asked_is_refused_with_its_number(tiny_tokenizer, probe, message):
    with pytest.raises(LayerTracerError, match=f"Probe 1 .*{message}"):
        encode_probes([Probe("Rome", " is"), probe], tiny_tokenizer, context_length=6)


def test_no_probes_and_text_without_a_tokenizer_are_refused():
    with pytest.raises(LayerTracerError, match="There are no probes"):
        encode_probes([], None)
    with pytest.raises(LayerTracerError, match="pass the model's tokenizer"):
        encode_probes([Probe("Rome", " is")], None)


def test_token_ids_need_no_tokenizer_and_may_fill_the_context():
    assert encode_probes([Probe((4, 5, 6), 7, "t")], None, context_length=3) == [EncodedProbe((4, 5, 6), 7, "t")]


def test_padding_side_and_truncation_settings_of_the_tokenizer_change_nothing(make_tokenizer):
    probes = [Probe("The capital city of France is", " Paris"), Probe("One, two,", " three")]
    expected = encode_probes(probes, make_tokenizer("<s> $A"))
    for side in ("left", "right"):
        tokenizer = make_tokenizer("<s> $A")
        tokenizer.padding_side = tokenizer.truncation_side = side
        assert encode_probes(probes, tokenizer) == expected


# -- batches ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 6), min_size=1, max_size=40), st.integers(1, 7))
def test_batches_hold_every_probe_once_and_never_two_lengths(lengths, size):
    batches = [batch.tolist() for batch in equal_length_batches(lengths, size)]
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert 1 <= len(batch) <= size
        assert len({lengths[index] for index in batch}) == 1
    # No more batches than needed: at most one of each length is not full.
    assert len(batches) == sum(-(-lengths.count(length) // size) for length in set(lengths))


# -- hash ------------------------------------------------------------------------------------------------------------


def test_the_hash_tells_ids_targets_tasks_and_order_apart():
    base = [EncodedProbe((1, 2), 3, "a"), EncodedProbe((4,), 5, "b")]
    others = [
        [EncodedProbe((1, 3), 3, "a"), base[1]],
        [EncodedProbe((1, 2), 4, "a"), base[1]],
        [EncodedProbe((1, 2), 3, "c"), base[1]],
        base[::-1],
        base[:1],
        [EncodedProbe((1,), 2, "a"), EncodedProbe((3,), 5, "b")],
    ]
    assert len({probes_hash(probes) for probes in [base, *others]}) == len(others) + 1
    assert probes_hash(base) == probes_hash(list(base))


def test_numpy_ids_hash_like_plain_ones():
    # Two reports with one hash measured the same thing, however the ids were held.
    plain = encode_probes([Probe((4, 5), 6)], None)
    held = encode_probes([Probe(np.array([4, 5]), np.int64(6))], None)
    assert held == plain
    assert probes_hash(held) == probes_hash(plain)
