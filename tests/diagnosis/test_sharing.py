"""Probes shared out over two real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.tolerance import nearly
from transformers import AutoModelForCausalLM

from hf_layertracer.diagnosis.diagnose import diagnose
from hf_layertracer.diagnosis.sharing import merged

from .scripts.diagnose_shared import CONFIG, PROBES


SCRIPT = Path(__file__).parent / "scripts" / "diagnose_shared.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_model):
    folder = tmp_path_factory.mktemp("shared")
    make_model("Llama").save_pretrained(folder / "model")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launch, str(SCRIPT), str(folder)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def test_processes_share_the_probes_and_report_what_one_would(folder):
    ranks = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    rows = []
    model.model.layers[1].mlp.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    alone = diagnose(model, PROBES, config=CONFIG).model_dump(mode="json")
    parts = ("lens", "task_particle", "sensitivities", "block_influence", "scores", "context")
    for rank in ranks:
        diagnosis = rank["report"]["diagnoses"][0]
        for part in parts:
            assert diagnosis[part] == nearly(alone["diagnoses"][0][part]), part
        assert rank["rows"] < 0.8 * sum(rows)
    # Each asks what it was given where the others ask something else; an error on one is known to all.
    assert [rank["other"] for rank in ranks] == [3, 4]
    assert all("deliberate" in rank["said"] for rank in ranks)


def test_what_processes_observed_apart_is_put_together():
    nan = np.nan
    assert merged(np.array([nan, nan]), [np.array([1.0, nan]), np.array([nan, 2.0])]).tolist() == [1, 2]
    assert merged(np.array([1.0, 1.0]), [np.array([3.0, 1.0]), np.array([2.0, 1.5])]).tolist() == [4, 1.5]
    assert merged(np.array([False, True]), [np.array([True, True]), np.array([False, True])]).tolist() == [True, True]
    assert merged(np.array([0, 0]), [np.array([7, 0]), np.array([0, 9])]).tolist() == [7, 9]
    assert merged([1], [[1, 2], [1, 3]]) == [1, 2, 3]
    assert merged({1: "a"}, [{1: "a", 2: "b"}, {1: "a", 3: None}]) == {1: "a", 2: "b", 3: None}
    assert merged(None, [None, "why"]) == "why"
