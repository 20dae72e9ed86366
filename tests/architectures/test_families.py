"""A dozen of the types that `make test-architectures` checks, one of each kind of difficulty."""

from __future__ import annotations

import re

import pytest

from .checks import check_type
from .sweep import ROOT, check_group
from .table import CHECKS, FULL, NOT_CAUSAL, PARTIAL, REFUSED, causal, status
from .tiny import MODEL_TYPES


FAMILIES = [
    "qwen3",  # dense, with normed queries and keys
    "gpt2",  # learned positions, tied head
    "bart",  # the decoder of an encoder-decoder
    "gemma3",  # a vision-language model with two kinds of attention
    "gemma3n_text",  # four residual streams, its own inputs for each layer, shared keys and values
    "deepseek_v4",  # hyper-connections, compressed attention, experts chosen by token
    "qwen3_next",  # gated delta nets, experts
    "jamba",  # state-space layers, attention, experts
    "zamba2",  # one block in several layers
    "rwkv",
    "blt",  # bytes and patches: four lists of layers
]


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_family_works_in_full(model_type):
    result = check_type(model_type)
    assert status(result) == FULL, result


def test_a_model_with_two_streams_says_what_does_not_hold_and_the_rest_works():
    result = check_type("inkling2_text")
    assert status(result) == PARTIAL
    assert "not the model's own output" in result["lens_reason"]
    assert result["path"] == "full-forward"


@pytest.mark.slow
def test_what_is_refused_says_why_and_a_process_that_dies_costs_one_type():
    # An unknown type ends the process with an error.
    pieces, dead, ahead = check_group(["xlm", "no such type", "xlnet"])
    assert [status(result) for result in (pieces, dead, ahead)] == [NOT_CAUSAL, "broken", NOT_CAUSAL]
    assert "parts of each layer in several lists" in pieces["refused"]
    assert "the process ended with 1" in dead["checks"]["diagnosis"]
    assert "it looks ahead" in ahead["not_causal"]
    assert "a later token changes what it says" in ahead["refused"]


def test_a_type_that_is_no_causal_language_model_has_to_be_refused():
    result = {"model_type": "x", "not_causal": "it looks ahead", "checks": dict.fromkeys(CHECKS, "ok")}
    assert status(result) == "broken"
    assert status({**result, "refused": "It looks ahead."}) == NOT_CAUSAL
    assert status({**result, "refused": "Its layers are in pieces.", "not_causal": ""}) == REFUSED


def test_a_failed_check_is_broken_whatever_else_works():
    result = {"model_type": "x", "checks": dict.fromkeys(CHECKS, "ok")}
    assert status(result) == FULL
    for name in CHECKS:
        assert status({**result, "checks": {**result["checks"], name: "differs"}}) == "broken"
        missing = {other: "ok" for other in CHECKS if other != name}
        assert status({**result, "checks": missing}) == "broken"


def test_the_page_lists_every_type_of_the_installed_transformers_once():
    page = (ROOT / "docs" / "architectures.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \|(.*)\|$", page, re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted(MODEL_TYPES)
    works = [cells.split("|")[-1].strip().split(":")[0] for _, cells in rows]
    states = (FULL, PARTIAL, REFUSED, "broken", NOT_CAUSAL, "not built")
    counted = {state: works.count(state) for state in states}
    assert f"**{counted[FULL]} of the other\n{causal(counted)} work in full" in page
    assert f"{counted[PARTIAL]} in part" in page
    assert counted["broken"] == 0
    assert counted[FULL] >= 0.98 * causal(counted)
    assert page.startswith("# Which models")
