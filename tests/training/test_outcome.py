"""Which losses and diagnoses a report takes for those before and after training."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from support.tolerance import nearly

from hf_layertracer import LayerTracerReport, LayerTracerTrainer
from hf_layertracer.hub.card import evaluation_results
from hf_layertracer.training.checkpoints import kept_step
from hf_layertracer.training.outcome import losses, notes_at_end


def history(**found: float) -> list[dict[str, Any]]:
    return [{"step": int(step.removeprefix("at")), "eval_loss": loss} for step, loss in found.items()]


@pytest.mark.parametrize(
    ("log_history", "step", "before", "after"),
    [
        (history(at0=3.0, at2=2.0, at4=2.5), 4, 3.0, 2.5),
        (history(at0=3.0, at2=2.0, at4=2.5), 2, 3.0, 2.0),  # the best one was put back
        (history(at2=2.0, at4=2.5), 4, None, 2.5),  # after two steps is not before training
        (history(at2=2.0, at4=2.5), 5, None, 2.5),
        (history(at0=3.0), 4, 3.0, None),
        ([], 4, None, None),
    ],
)
def test_a_loss_is_of_the_model_that_it_is_said_to_be_of(log_history, step, before, after):
    figures, notes = losses(log_history, step)
    assert (figures["eval_loss_before"], figures["eval_loss_after"]) == (before, after)
    assert notes == []


def test_a_model_that_is_not_of_the_last_step_is_told():
    log_history = history(at0=3.0, at2=2.0, at4=2.5)
    assert notes_at_end(log_history, 4, 4, 0) == []
    assert notes_at_end(log_history, 4, 2, 0) == [
        "Training ended at step 4 and put the best checkpoint back, that of step 2."
    ]
    assert "later steps are left out" in notes_at_end(log_history, 4, 2, 1)[0]
    assert notes_at_end(log_history, 5, 5, 0) == [
        "The evaluation loss after training is of step 4; the model is of step 5."
    ]
    assert notes_at_end(history(at0=3.0), 5, 5, 0) == []


@pytest.mark.parametrize(
    ("load", "checkpoint", "best", "step"),
    [
        (True, "run/checkpoint-2", 2, 2),
        (True, "run/checkpoint-2", 4, 2),  # step 4 was better and left no checkpoint
        (True, "elsewhere", 4, 4),
        (True, None, 4, 9),
        (False, "run/checkpoint-2", 2, 9),
    ],
)
def test_the_model_that_is_kept_is_that_of_the_checkpoint_that_was_put_back(load, checkpoint, best, step):
    state = SimpleNamespace(global_step=9, best_model_checkpoint=checkpoint, best_global_step=best)
    assert kept_step(SimpleNamespace(load_best_model_at_end=load), state) == step


@pytest.mark.parametrize("steps", [None, 3])
def test_what_is_reported_is_of_the_best_model_where_that_is_put_back(
    steps, make_model, make_args, token_dataset, quick
):
    saving = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
    trainer = LayerTracerTrainer(
        model=make_model(),
        # Losses fall, and the highest is asked for: an early checkpoint is the best.
        args=make_args(**saving, max_steps=6, load_best_model_at_end=True, greater_is_better=True),
        train_dataset=token_dataset.select(range(4)),
        eval_dataset=token_dataset.select(range(4)),
        layertracer_config=quick(quick_look=True, diagnose_steps=steps, diagnose_after=True),
    )
    trainer.train()
    report = trainer.layertracer_report
    best = int(trainer.state.best_model_checkpoint.rsplit("-", 1)[1])
    assert best < 6
    left = trainer.evaluate()["eval_loss"]
    assert report.training.eval_loss_after == nearly(left)
    assert report.training.eval_loss_before is None
    assert report.training.steps == 6
    assert report.latest.step == best
    assert evaluation_results(report)[-1].metric_value == report.training.eval_loss_after
    assert any(f"put the best checkpoint back, that of step {best}" in note for note in report.notes)
    assert LayerTracerReport.load(trainer.args.output_dir) == report
