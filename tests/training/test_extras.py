"""Optimizers and searches from other packages, where they are installed: `make test-deepspeed` installs them."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import Trainer

from hf_layertracer import LayerTracerCallback, LayerTracerReport, LayerTracerTrainer


@pytest.mark.parametrize("way", ["class", "attached", "events alone"])
@pytest.mark.parametrize("optimizer", ["galore_adamw", "apollo_adamw"])
def test_low_rank_optimizers_hold_what_trains_and_nothing_else(
    optimizer, way, make_model, make_args, token_dataset, quick
):
    pytest.importorskip(f"{optimizer.split('_')[0]}_torch", reason="not installed: make test-deepspeed")
    args = make_args(
        optim=optimizer,
        optim_target_modules=["self_attn", "mlp"],
        optim_args="rank=4,update_proj_gap=2,scale=1.0,proj=random" if "apollo" in optimizer else "rank=4",
    )
    settings = {"model": make_model(), "args": args, "train_dataset": token_dataset}
    if way == "class":
        trainer = LayerTracerTrainer(layertracer_config=quick(), **settings)
    else:
        callback = LayerTracerCallback(quick())
        trainer = Trainer(callbacks=[callback], **settings)
        if way == "attached":
            callback.attach(trainer)
    trainer.train()
    held = [parameter for group in trainer.optimizer.param_groups for parameter in group["params"]]
    if way == "events alone":  # what is frozen stays, without a state
        held = list(trainer.optimizer.state)
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    assert {id(parameter) for parameter in held} == {id(parameter) for parameter in trained}
    assert 0 < len(trained) < len(list(trainer.model.parameters()))


def test_each_trial_of_a_real_search_keeps_a_report(make_model, make_args, token_dataset, quick):
    pytest.importorskip("optuna", reason="not installed: make test-deepspeed")
    trainer = LayerTracerTrainer(
        model_init=lambda: make_model(),
        args=make_args(save_strategy="steps", save_steps=2, eval_strategy="steps", eval_steps=3),
        train_dataset=token_dataset,
        eval_dataset=token_dataset,
        layertracer_config=quick(),
    )
    trainer.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)},
        n_trials=2,
        backend="optuna",
    )
    run = Path(trainer.args.output_dir)
    reports = [LayerTracerReport.load(run / f"run-{number}") for number in (0, 1)]
    assert reports[0].training.train_loss != reports[1].training.train_loss
    assert LayerTracerReport.load(run / "run-0" / "checkpoint-2").plan == reports[0].plan
