"""Two real processes under DeepSpeed, on CPUs: `make test-deepspeed`, which has an environment of its own for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hf_layertracer import LayerTracerReport


pytest.importorskip("deepspeed", reason="not installed: make test-deepspeed")
SCRIPT = Path(__file__).parent / "scripts" / "train_deepspeed.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_model) -> Path:
    """What two ranks left behind."""
    folder = tmp_path_factory.mktemp("deepspeed")
    make_model().save_pretrained(folder / "model")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    # DeepSpeed may compile its shared memory first; where it is stopped meanwhile, a lock stays in the usual folder.
    environment = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "TORCH_EXTENSIONS_DIR": str(folder / "extensions")}
    for stage in ("2", "3"):  # accelerate takes one plugin a process
        done = subprocess.run(
            [*launch, str(SCRIPT), str(folder), stage],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=590,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.parametrize("stage", [2, 3])
def test_both_ranks_train_under_one_plan_and_one_writes_the_report(folder, stage):
    first, second = (json.loads((folder / f"zero{stage}-rank{rank}.json").read_text()) for rank in (0, 1))
    assert (first["engine"], first["world_size"]) == ("DeepSpeedEngine", 2)
    assert first["sharded"] == (stage == 3)
    assert first["plan"] == second["plan"]
    assert first["plan"]["frozen_layers"] == [2, 3]
    assert first["steps"] == 3
    assert first["diagnoses"] == second["diagnoses"] == [0, 3]
    assert first["trainable"] == second["trainable"] > 0
    report = LayerTracerReport.load(folder / f"zero{stage}")
    assert report.plan.model_dump() == first["plan"]
    assert report.training.tokens == first["tokens"] == 2 * 3 * 2 * 12
    assert LayerTracerReport.load(folder / f"zero{stage}" / "checkpoint-2").plan == report.plan


def test_sharded_weights_are_measured_as_whole_ones_are_before_training_and_after(folder):
    two, three = (json.loads((folder / f"zero{stage}-rank0.json").read_text())["sensitivities"] for stage in (2, 3))
    assert three[0] == pytest.approx(two[0], abs=1e-6)
    assert three[1] == pytest.approx(two[1], abs=1e-4)  # rounding has gone through Adam
