"""What is said of arms before anything is trained."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
from support.models import tiny_model

from hf_layertracer.trials.folder import TrialFolder, read_json, write_json
from hf_layertracer.trials.matching import PreparedArm
from hf_layertracer.trials.prepare import _changes_that_never_come, prepare


def _notes(steps: int, strategy: str, **options: Any) -> list[str]:
    arm = PreparedArm(
        arm={"name": "one", "strategy": strategy, **options},
        trainable_parameters=1,
        total_parameters=2,
        flops_per_token=1,
        plan={"trained_layers": [0], "num_layers": 8},
    )
    return list(_changes_that_never_come([arm], steps))


@pytest.mark.parametrize("strategy", ["lisa", "grass", "schedule", "adaptive"])
@pytest.mark.parametrize("steps", [4, 20])
def test_an_arm_that_ends_before_its_first_change_is_told(strategy, steps):
    (note,) = _notes(steps, strategy)
    assert note.startswith(f"one never changes what trains: a run has {steps} steps, and it changes every 20.")


def test_an_arm_that_changes_is_not():
    for strategy in ("lisa", "schedule", "adaptive"):
        assert not _notes(21, strategy)
    assert not _notes(4, "random")
    assert not _notes(4, "lisa", change_steps=3, thaw_warmup_steps=1)


def test_an_arm_that_never_uses_the_gradients_it_is_to_draw_by_is_told():
    assert "reach none twice" in _notes(21, "grass")[0]
    assert not _notes(181, "grass")


@pytest.mark.parametrize(("architecture", "said"), [("Llama", "FLOPs"), ("Mixtral", "FLOPs count all experts")])
def test_what_the_flops_of_a_model_with_experts_count_is_told(architecture, said, world, make_config, tmp_path):
    shutil.copytree(world / "model", tmp_path / "model")
    tiny_model(architecture).save_pretrained(tmp_path / "model")
    config = make_config(model=str(tmp_path / "model"), arms=[{"strategy": "full"}])
    folder = TrialFolder(tmp_path / "trial")
    write_json(folder.trial, {"config": config.model_dump()})
    prepare(folder)
    notes = " ".join(read_json(folder.prepared)["notes"])
    assert (said in notes) == (architecture == "Mixtral")
