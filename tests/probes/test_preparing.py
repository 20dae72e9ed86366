"""What a diagnosis asks, and the notes about what looks wrong with it."""

from __future__ import annotations

import pytest

from hf_layertracer import LayerTracerError
from hf_layertracer.probes import Probe
from hf_layertracer.probes.preparing import prepare_probes


ROME, BERLIN = Probe("Rome is the capital city of", " Italy"), Probe("Berlin is the capital city of", " Germany")


def test_copies_are_asked_once_and_counted(tiny_tokenizer):
    found = prepare_probes([ROME, BERLIN, ROME, ROME], tiny_tokenizer)
    assert found.probes == [ROME, BERLIN]
    assert len(found.encoded) == 2
    (note,) = found.notes
    assert note.startswith("2 of 4 probes are copies")


def test_good_probes_have_no_notes(tiny_tokenizer):
    assert prepare_probes([ROME, BERLIN], tiny_tokenizer).notes == []


def test_a_target_without_its_space_is_noted_with_an_example(tiny_tokenizer):
    (note,) = prepare_probes([ROME, Probe("One, two, three is", "four")], tiny_tokenizer).notes
    assert "In 1 of 2 probes the target follows a letter without a space" in note
    assert "'One, two, three is' + 'four'" in note


def test_a_blank_target_is_noted(tiny_tokenizer):
    assert any("nothing but spaces" in note for note in prepare_probes([Probe("Rome is", "\n")], tiny_tokenizer).notes)


def test_long_probes_are_refused_or_left_out_with_their_number(tiny_tokenizer):
    long = Probe("Rome " * 50, " is")
    with pytest.raises(LayerTracerError, match=r"Probe 1 .*leave all such probes out"):
        prepare_probes([ROME, long], tiny_tokenizer, context_length=30)
    found = prepare_probes([ROME, long], tiny_tokenizer, context_length=30, skip_long=True)
    assert found.probes == [ROME]
    assert found.notes == ["1 of 2 probes are longer than the model's context of 30 tokens and were left out."]
    with pytest.raises(LayerTracerError, match="All 1 probes are longer"):
        prepare_probes([long], tiny_tokenizer, context_length=30, skip_long=True)


def test_choices_are_known_by_their_first_tokens(tiny_tokenizer):
    question = Probe("Rome", " is", choices=(" is", " the"))
    (encoded,) = prepare_probes([question], tiny_tokenizer).encoded
    assert encoded.choice_ids[0] == encoded.target_id
    assert len(set(encoded.choice_ids)) == 2
    alike = prepare_probes([Probe("Which is it?", " A", choices=(" A", " A"))], tiny_tokenizer)
    assert alike.encoded[0].choice_ids == ()
    assert "begin with the same token" in alike.notes[-1]


@pytest.mark.parametrize("probe", [Probe((1.5, 2), 3), Probe((1, 2), 3.5), Probe(7, 3), Probe((1, None), 3)])
def test_token_ids_that_are_no_whole_numbers_are_refused(probe):
    with pytest.raises(LayerTracerError, match=r"Probe 0 .*not one list of whole numbers"):
        prepare_probes([probe], None)
