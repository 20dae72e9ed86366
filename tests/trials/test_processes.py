"""A run over several processes: the same batches, so the same numbers."""

from __future__ import annotations

import pytest

from hf_layertracer import run_trials
from hf_layertracer.trials import TrialsResult, process, run
from hf_layertracer.trials.folder import read_json


@pytest.mark.slow
@pytest.mark.parametrize(
    "arm",
    [
        {"strategy": "freeze-deep"},
        {"strategy": "lisa", "change_steps": 2, "thaw_warmup_steps": 1},
        {"strategy": "adaptive", "learning_rate": 1e-1, "change_steps": 2, "thaw_warmup_steps": 1, "hysteresis": 0},
    ],
    ids=lambda arm: arm["strategy"],
)
def test_two_processes_train_on_the_same_batches_as_one(
    arm, make_config, finished, in_this_process, tmp_path, monkeypatch
):
    arms, train = [arm], {"save_steps": 2}
    alone = TrialsResult.load(finished(make_config(arms=arms, train=train)))

    here = run.run_module

    def run_module(module, folder, *args, **options):
        elsewhere = options.get("processes", 1) > 1
        return (process.run_module if elsewhere else here)(module, folder, *args, **options)

    monkeypatch.setattr(run, "run_module", run_module)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    together = run_trials(make_config(arms=arms, train=train, processes=2), tmp_path / "together")
    assert together.failures == {}
    ours, theirs = together.rows[1], alone.rows[1]
    if arm["strategy"] != "freeze-deep":
        trained = read_json(next((tmp_path / "together").rglob("trained.json")))
        assert trained["allocations"] > 1, "what trains changed"
    # Gradients are summed in another order.
    assert ours["metrics"] == pytest.approx(theirs["metrics"], rel=1e-3)
    assert ours["cost"]["tokens"] == theirs["cost"]["tokens"]
    assert ours["cost"]["trainable_parameters"] == theirs["cost"]["trainable_parameters"]


def test_a_checkpoint_that_does_not_fit_on_the_disk_is_told_in_words(tmp_path):
    def work() -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")  # of torch.save

    with pytest.raises(SystemExit):
        process.run_as_child(work, tmp_path / "failure.json")
    cause = read_json(tmp_path / "failure.json")["cause"]
    assert cause.startswith("A checkpoint could not be written: is the disk full? (RuntimeError: [enforce fail")
