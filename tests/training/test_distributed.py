"""Two real processes on CPUs, as `accelerate launch` starts them: under DDP, and under FSDP2 with real shards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tolerance import assert_close_weights, nearly

from hf_layertracer import LayerTracerReport


SCRIPT = Path(__file__).parent / "scripts" / "train_distributed.py"
# FSDP2 twice: sharded by transformers when the model is loaded, and by accelerate when it is prepared.
KINDS = ["ddp", "sharded", "fsdp2"]
# accelerate runs one process alone where it is told --cpu; with --multi_gpu it starts torchrun, also without a GPU.
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
LAUNCH += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_model) -> Path:
    """What two ranks left behind; importing takes longer than training, so one launch serves all tests."""
    folder = tmp_path_factory.mktemp("distributed")
    make_model().save_pretrained(folder / "model")
    done = launched(folder)
    assert done.returncode == 0, done.stderr[-4000:]
    (folder / "stderr").write_text(done.stderr)
    return folder


def launched(folder: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*LAUNCH, str(SCRIPT), str(folder)],
        env=os.environ | {"OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def saw(folder: Path, kind: str, rank: int) -> dict[str, Any]:
    """What a rank saw in a run."""
    place = folder / f"{kind}-rank{rank}"
    return json.loads(place.with_suffix(".json").read_text()) | torch.load(place.with_suffix(".pt"))


@pytest.fixture(params=KINDS)
def run(request: pytest.FixtureRequest, folder: Path) -> tuple[str, list[dict[str, Any]]]:
    """The kind of run and what each rank saw."""
    return request.param, [saw(folder, request.param, rank) for rank in range(2)]


def test_the_processes_were_wrapped_as_meant(run):
    kind, ranks = run
    wrapper = "DistributedDataParallel" if kind == "ddp" else "FSDPLlamaForCausalLM"
    assert [rank["wrapper"] for rank in ranks] == [wrapper, wrapper]
    whole = sum(weight.numel() for weight in ranks[0]["after"].values())
    assert [rank["local"] for rank in ranks] == ([whole] * 2 if kind == "ddp" else [whole // 2] * 2)


def test_all_ranks_have_one_plan_from_one_diagnosis(run):
    _, (first, second) = run
    # The first rank sends what it measured to the other: to the bit, as a plan that differs would hang the run.
    assert first["plan"] == second["plan"]
    assert first["sensitivity"] == second["sensitivity"]
    assert first["plan"]["trained_layers"] == [0, 1]
    assert first["trainable"] == second["trainable"]


def test_trained_weights_agree_between_ranks_and_frozen_ones_are_untouched(run):
    _, (first, second) = run
    # Each rank takes its own optimizer steps.
    assert_close_weights(first["after"], second["after"])
    changed = sorted(name for name in first["after"] if not torch.equal(first["after"][name], first["before"][name]))
    assert changed == first["trainable"]
    assert all(name.startswith(("model.embed_tokens", "model.layers.0.", "model.layers.1.")) for name in changed)
    assert first["optimizer_parameters"] == len(changed) == 19


def test_tokens_are_counted_over_all_ranks(run):
    _, ranks = run
    assert [rank["tokens"] for rank in ranks] == [2 * 3 * 2 * 12] * 2


def test_only_the_first_rank_writes(run, folder):
    kind, (first, second) = run
    assert second["written"] == []
    assert set(first["written"]) == {"layertracer_report.json", "layertracer_report.png", "README.md"}
    report = LayerTracerReport.load(folder / kind)
    assert report.plan.model_dump() == first["plan"]
    assert report.training.tokens == first["tokens"]
    assert LayerTracerReport.load(folder / kind / "checkpoint-2").plan == report.plan


def test_a_later_diagnosis_measures_the_same_on_all_ranks(run):
    _, (first, second) = run
    assert [diagnosis["step"] for diagnosis in first["diagnoses"]] == [0, 2]
    # Each rank measures for itself, and may round differently.
    assert first["diagnoses"] == nearly(second["diagnoses"])


@pytest.mark.parametrize("kind", KINDS[1:])
def test_sharding_changes_neither_diagnosis_nor_plan(folder, kind):
    ddp, sharded = saw(folder, "ddp", 0), saw(folder, kind, 0)
    # Whole and sharded parameters lie elsewhere in memory, which changes the order of sums in matrix products.
    assert sharded["sensitivity"] == nearly(ddp["sensitivity"], abs=1e-8)
    assert sharded["plan"] == ddp["plan"]  # of the numbers of layers alone
    # After training, rounding has gone through Adam as well.
    assert _means(sharded["diagnoses"][1]) == pytest.approx(_means(ddp["diagnoses"][1]), abs=1e-5)


def test_a_resumed_run_ends_with_the_weights_of_the_whole(folder):
    for rank in range(2):
        whole, resumed = saw(folder, "ddp", rank), saw(folder, "ddp-resumed", rank)
        assert_close_weights(resumed["after"], whole["after"])
        assert resumed["plan"] == whole["plan"]
        assert [diagnosis["step"] for diagnosis in resumed["diagnoses"]] == [0, 2]


def test_a_rank_that_dies_ends_the_launch(folder, tmp_path):
    (tmp_path / "model").symlink_to(folder / "model")
    done = launched(tmp_path, DIE_IN_DIAGNOSIS="1")  # without an end, subprocess raises TimeoutExpired
    assert done.returncode != 0
    assert "exitcode  : 7" in done.stderr
    assert not list(tmp_path.glob("*-rank*.json"))


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
@pytest.mark.parametrize("run", ["", "-resumed"])
def test_every_rank_changes_to_the_same_layers_and_gradients_of_thawed_ones_are_averaged(kind, run, folder):
    first, second = (saw(folder, f"{kind}-grass{run}", rank) for rank in range(2))
    assert first["plans"] == second["plans"]
    assert [step for step, _ in first["plans"]][:2] == [0, 1]
    # Each rank reads other rows: a layer whose gradients are not averaged is another one on each.
    assert_close_weights(first["after"], second["after"])
    trained = {layer for _, layers in first["plans"] for layer in layers}
    assert len(trained) > 2
    changed = {name for name in first["after"] if not torch.equal(first["after"][name], first["before"][name])}
    assert {int(name.split(".")[2]) for name in changed if name.startswith("model.layers.")} == trained
    assert first["optimizer_parameters"] == len(first["trainable"])


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_a_resumed_run_changes_as_a_whole_one_does(kind, folder):
    whole, resumed = (saw(folder, f"{kind}-grass{run}", 0) for run in ("", "-resumed"))
    assert resumed["plans"] == whole["plans"]
    assert_close_weights(resumed["after"], whole["after"])


def test_sharding_changes_no_draw(folder):
    ddp, fsdp2 = (saw(folder, f"{kind}-grass", 0) for kind in ("ddp", "fsdp2"))
    assert fsdp2["plans"] == ddp["plans"]


@pytest.mark.parametrize("way", ["checkpointing", "reentrant", "cache"])
def test_a_frozen_prefix_that_runs_once_or_from_disk_gives_every_rank_the_same_weights(way, folder):
    plain, *ranks = saw(folder, "prefix-plain", 0), saw(folder, f"prefix-{way}", 0), saw(folder, f"prefix-{way}", 1)
    assert {rank["wrapper"] for rank in (plain, *ranks)} == {"DistributedDataParallel"}
    for rank in ranks:
        assert_close_weights(rank["after"], plain["after"])
    # Each rank sees half of the rows of an epoch, other ones in the next; what both kept serves both.
    assert [rank["runs"] for rank in ranks] == ([5, 5] if way == "cache" else [6, 6])


def test_a_run_says_that_fsdp_shards_nothing_on_cpus(folder):
    assert (folder / "stderr").read_text().count("fsdp shards nothing in this run") == 1


def test_a_callback_that_is_not_attached_is_refused_on_every_rank(folder):
    for rank in range(2):
        line = (folder / f"alone-rank{rank}.txt").read_text()
        assert "MULTI_CPU" in line
        assert "callback.attach(trainer)" in line
        assert "\n" not in line


def _means(diagnosis: dict) -> list[float]:
    return diagnosis["sensitivities"]["mask"]["mean"]
