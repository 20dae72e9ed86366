"""What every hybrid with new mixers must do, in transformers' classes and in ours."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from tests.support.hybrids import DONORS, REMOTE, REPLACED, load_model, tokens


INITS = ("from_attention", "fresh")
NATIVE = [(name, init, "native") for name in DONORS for init in INITS]


@pytest.fixture(params=[*NATIVE, *((name, "from_attention", "remote") for name in REMOTE)], ids="-".join)
def pair(request, built) -> tuple[Path, Path]:
    return built(*request.param)


@pytest.fixture
def hybrid(pair) -> PreTrainedModel:
    return load_model(pair[1])


@pytest.mark.parametrize(
    ("architecture", "where"), [*((name, "native") for name in DONORS), *((name, "remote") for name in REMOTE)]
)
def test_up_to_the_first_new_mixer_the_hybrid_computes_what_the_donor_does(built, architecture, where):
    donor, folder = built(architecture, where=where)
    ours, theirs = (
        load_model(place)(tokens(), output_hidden_states=True).hidden_states[: REPLACED[0] + 1]
        for place in (folder, donor)
    )
    for one, other in zip(ours, theirs, strict=True):
        # Fused and separate matrices may round otherwise.
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_saving_and_loading_again_changes_no_bit(hybrid, tmp_path):
    hybrid.save_pretrained(tmp_path / "again")
    again = load_model(tmp_path / "again")
    ours, theirs = hybrid.state_dict(), again.state_dict()
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    # The weights are equal to the bit; read from a file they lie elsewhere, and products of matrices may round otherwise.
    torch.testing.assert_close(hybrid(tokens()).logits, again(tokens()).logits, rtol=1e-4, atol=1e-5)


def test_generation_with_a_cache_gives_what_it_gives_without(hybrid):
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    settings |= {"output_logits": True, "return_dict_in_generate": True}
    ours, theirs = (hybrid.generate(tokens(2), use_cache=cached, **settings) for cached in (True, False))
    lead = min(float((top := logits.topk(2).values)[..., 0].sub(top[..., 1]).min()) for logits in theirs.logits)
    assert lead > 5e-5, "the two likeliest tokens are too close for two ways of computing to choose the same"
    assert torch.equal(ours.sequences, theirs.sequences)
    for one, other in zip(ours.logits, theirs.logits, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_every_parameter_has_a_gradient(hybrid):
    hybrid.train()
    hybrid(tokens(2), labels=tokens(2)).loss.backward()
    for name, parameter in hybrid.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing_and_lengths_may_differ(hybrid, side):
    rows = [tokens(1, length)[0] for length in (9, 5, 7)]
    longest = max(len(row) for row in rows)
    batch, mask = torch.zeros(3, longest, dtype=torch.long), torch.zeros(3, longest, dtype=torch.long)
    for number, row in enumerate(rows):
        place = slice(longest - len(row), None) if side == "left" else slice(len(row))
        batch[number, place], mask[number, place] = row, 1
    found = hybrid(batch, attention_mask=mask).logits
    for number, row in enumerate(rows):
        alone = hybrid(row[None]).logits[0]
        torch.testing.assert_close(found[number][mask[number].bool()], alone, rtol=1e-3, atol=1e-4)


def test_gradient_checkpointing_changes_no_gradient(hybrid):
    hybrid.train()
    found = []
    for _ in range(2):
        hybrid.zero_grad()
        hybrid(tokens(2), labels=tokens(2), use_cache=False).loss.backward()
        found.append({name: parameter.grad.clone() for name, parameter in hybrid.named_parameters()})
        hybrid.activation_checkpointing_enable()
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-3, atol=1e-5)
