"""Hybrids that no class of transformers holds, in a class that lies beside their weights."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hf_layertracer.hybrid.provenance import HybridRecord
from tests.support.hybrids import CLASSES, OURS, REMOTE, load_model


@pytest.mark.parametrize("architecture", REMOTE)
def test_what_no_class_of_transformers_holds_gets_a_class_beside_its_weights(built, architecture):
    _, folder = built(architecture, where="remote")
    record = HybridRecord.load(folder)
    assert record.architecture == OURS
    assert record.remote_code
    assert tuple(entry.mixer for entry in record.layers) == (None, *REMOTE[architecture], None)
    assert "largest difference from the donor's 0 in float32" in record.class_verified
    assert not list(folder.glob(".*"))


STANDALONE = """
import sys
sys.modules["hf_layertracer"] = None  # importing it fails
import torch
from transformers import AutoConfig, AutoModelForCausalLM

try:
    AutoConfig.from_pretrained(sys.argv[1], trust_remote_code=False)
except ValueError as error:
    assert "contains custom code" in str(error), error
else:
    raise AssertionError("code was run without leave")
for folder, expected in zip(sys.argv[1::2], sys.argv[2::2]):
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
    ids = torch.arange(5, 14)[None]
    torch.testing.assert_close(model(ids).logits, torch.load(expected), rtol=1e-4, atol=1e-5)
    settings = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    assert torch.equal(model.generate(ids, **settings), model.generate(ids, **settings, use_cache=False))
    model.save_pretrained(folder + "-again")
    again = AutoModelForCausalLM.from_pretrained(folder + "-again", trust_remote_code=True)
    ours, theirs = model.state_dict(), again.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    print(type(again).__name__, type(again).__module__.split(".")[0])
"""


def test_our_class_loads_where_our_package_is_not(built, tmp_path):
    pairs: list[str | Path] = []
    for architecture in REMOTE:
        _, folder = built(architecture, where="remote")
        with torch.no_grad():
            torch.save(load_model(folder)(torch.arange(5, 14)[None]).logits, tmp_path / architecture)
        pairs += [folder, tmp_path / architecture]
    command = [sys.executable, "-c", STANDALONE, *map(str, pairs)]
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == [OURS, "transformers_modules"] * len(REMOTE)


def test_all_kinds_of_native_mixers_stay_native_though_code_is_allowed(built):
    assert HybridRecord.load(built("Llama")[1]).architecture == CLASSES["mamba2"]
