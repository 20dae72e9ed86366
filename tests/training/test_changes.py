"""Strategies that change during training what trains: flags, optimizer, report and checkpoints agree at every step."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.processes import kill_when, load_script
from support.tolerance import assert_close_weights, nearly
from torch import nn
from transformers import Trainer, TrainerCallback

from hf_layertracer import (
    DiagnosisConfig,
    LayerTracerCallback,
    LayerTracerConfig,
    LayerTracerError,
    LayerTracerTrainer,
    Probe,
    diagnose,
    make_plan,
)
from hf_layertracer.training.allocation import Allocation
from hf_layertracer.training.gradients import GradientNorms


SCRIPTS = Path(__file__).parent / "scripts"
OPTIONS: dict[str, dict[str, Any]] = {
    "lisa": {},
    "grass": {"keep_optimizer_state": True},
    "schedule": {"frozen_end": "shallow"},
    "adaptive": {"hysteresis": 0},
}


class Watch(TrainerCallback):
    """What was frozen, and did it move? What did the optimizer hold?"""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.trainer: Trainer | None = None

    def on_pre_optimizer_step(self, *_: Any, model: nn.Module, **__: Any) -> None:
        self._before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    def on_step_end(self, args: Any, state: Any, control: Any, model: nn.Module, **__: Any) -> None:
        optimizer = self.trainer.optimizer.optimizer
        names = {parameter: name for name, parameter in model.named_parameters()}
        self.steps.append(
            {
                "trained": {name for name, parameter in model.named_parameters() if parameter.requires_grad},
                "moved": {n for n, p in model.named_parameters() if not torch.equal(p, self._before[n])},
                "held": sorted(names[p] for group in optimizer.param_groups for p in group["params"]),
                "states": {names[p] for p, state in optimizer.state.items() if state},
                "decayed": {names[p] for p in optimizer.param_groups[0]["params"]},
                "rates": [group["lr"] for group in optimizer.param_groups],
            }
        )


@pytest.fixture
def train(make_model, make_args, token_dataset, quick):
    """`train(strategy, name="run", resume=None, **options)`: ten steps, a change every third; trainer and what was seen."""

    def run(strategy: str, name: str = "run", resume: str | None = None, args: Any = None, **options: Any):
        watch = Watch()
        settings = {"change_steps": 3, "thaw_warmup_steps": 2, **options} if strategy in OPTIONS else options
        arguments = {"save_strategy": "steps", "save_steps": 1, "weight_decay": 0.1, "lr_scheduler_type": "linear"}
        arguments = {"max_steps": 10, **arguments, **(args or {})}
        watch.trainer = trainer = LayerTracerTrainer(
            model=make_model(),
            args=make_args(name, **arguments),
            train_dataset=token_dataset,
            eval_dataset=token_dataset,
            layertracer_config=quick(strategy=strategy, **settings),
            callbacks=[watch],
        )
        trainer.train(resume_from_checkpoint=resume and str(Path(trainer.args.output_dir) / resume))
        return trainer, watch.steps

    return run


@pytest.mark.parametrize("strategy", OPTIONS)
def test_what_trains_is_what_the_report_says_at_every_step_and_a_resumed_run_ends_the_same(strategy, train):
    whole, steps = train(strategy, **OPTIONS[strategy])
    plans = whole.layertracer_report.plans
    assert len(plans) > 1
    rates = [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]
    for step, seen in enumerate(steps):
        plan = [record.plan for record in plans if record.step <= step][-1]
        layers = {int(name.split(".")[2]) for name in seen["trained"] if name.startswith("model.layers.")}
        assert layers == set(plan.trained_layers)
        assert ("lm_head.weight" in seen["trained"]) == plan.train_head
        assert seen["moved"] == seen["trained"]
        assert set(seen["held"]) == seen["trained"]
        assert len(seen["held"]) == len(seen["trained"])
        assert seen["states"] == seen["trained"]
        assert not any("norm" in name for name in seen["decayed"])
        assert {name for name in seen["trained"] if "norm" not in name} == seen["decayed"]
        # The scheduler goes on as if nothing changed; this is the rate of the step after.
        assert seen["rates"] == pytest.approx([1e-2 * (rates[step] - 1) / 10] * 2)

    for checkpoint in ("checkpoint-3", "checkpoint-4"):  # before a change, and while what it thawed warms up
        resumed, _ = train(strategy, resume=checkpoint, **OPTIONS[strategy])
        assert [r.plan for r in resumed.layertracer_report.plans] == [r.plan for r in plans]
        assert [r.step for r in resumed.layertracer_report.plans] == [r.step for r in plans]
        assert_close_weights(resumed.model, whole.model)


def test_clipping_leaves_the_norms_that_layers_are_drawn_by(train):
    seen = []
    for number, clip in enumerate((0.0, 1.0, 1e-3)):
        trainer, _ = train(
            "grass", f"run{number}", args={"max_grad_norm": clip, "max_steps": 4, "learning_rate": 1e-6}
        )
        seen.append([score for score in trainer.layertracer_report.plans[1].seen if score is not None])
    assert seen[1] == pytest.approx(seen[0], rel=1e-3)
    assert seen[2] == pytest.approx(seen[0], rel=1e-3)


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_loss_that_is_scaled_leaves_the_norms_that_layers_are_drawn_by(clip, train, monkeypatch):
    make, seen = LayerTracerTrainer.create_accelerator_and_postprocess, []

    def scaled(trainer):
        make(trainer)
        trainer.accelerator.scaler = torch.amp.GradScaler("cpu", growth_interval=2)

    for name in ("plain", "scaled"):
        args = {"max_grad_norm": clip, "max_steps": 4, "learning_rate": 1e-6}
        trainer, _ = train("grass", name, args=args)
        seen.append([score for score in trainer.layertracer_report.plans[1].seen if score is not None])
        monkeypatch.setattr(LayerTracerTrainer, "create_accelerator_and_postprocess", scaled)
    assert seen[1] == pytest.approx(seen[0], rel=1e-3)


def test_norms_of_a_scaled_loss_are_those_of_the_loss(model):
    found = []
    for scale in (1.0, 2.0**16):
        model.zero_grad()
        (scale * model(input_ids=torch.ones(1, 4, dtype=torch.long)).logits.float().square().mean()).backward()
        norms = GradientNorms(len(model.model.layers), "model.layers")
        norms.add(model, scale)
        found.append(norms.scores())
    assert found[1] == pytest.approx(found[0], rel=1e-2)


def test_where_an_earlier_model_is_put_back_the_report_says_what_had_trained_by_then(train):
    args = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 1, "greater_is_better": True}
    # Losses fall, and the highest is asked for: the first checkpoint is the best.
    trainer, steps = train("grass", args={**args, "max_steps": 7, "weight_decay": 0.0})
    report, kept = trainer.layertracer_report, int(trainer.state.best_model_checkpoint.rpartition("-")[2])
    assert kept < 7
    assert all(record.step < kept for record in report.plans)
    layers = {int(name.split(".")[2]) for name in steps[kept - 1]["trained"] if name.startswith("model.layers.")}
    assert layers == set(report.plan.trained_layers)
    assert any("Later changes of what trains are left out." in note for note in report.notes)


def test_a_callback_that_is_attached_changes_what_trains_too(make_model, make_args, token_dataset, quick):
    callback = LayerTracerCallback(quick(strategy="lisa", change_steps=1, thaw_warmup_steps=1))
    trainer = Trainer(model=make_model(), args=make_args(), train_dataset=token_dataset, callbacks=[callback])
    callback.attach(trainer)
    trainer.train()
    assert len(callback.report.plans) > 1


def test_a_checkpoint_without_the_history_is_refused(train):
    train("freeze-deep", name="other")
    trainer, _ = train("lisa")
    state = Path(trainer.args.output_dir) / "checkpoint-4" / "trainer_state.json"
    state.write_text((Path(trainer.args.output_dir).parent / "other/checkpoint-4/trainer_state.json").read_text())
    with pytest.raises(LayerTracerError, match="does not say which layers trained when"):
        train("lisa", resume="checkpoint-4")


def test_something_else_that_thaws_is_found_at_the_next_change(make_model, make_args, token_dataset, quick):
    class Thaw(TrainerCallback):
        def on_step_end(self, *_: Any, model: nn.Module, **__: Any) -> None:
            model.visited.requires_grad_(True)

    model = make_model()
    model.register_parameter("visited", nn.Parameter(torch.zeros(1), requires_grad=False))
    trainer = LayerTracerTrainer(
        model=model,
        args=make_args(),
        train_dataset=token_dataset,
        layertracer_config=quick(strategy="lisa", change_steps=1, thaw_warmup_steps=1),
        callbacks=[Thaw()],
    )
    with pytest.raises(LayerTracerError, match=r"1 require a gradient and are not in the optimizer \(visited\)"):
        trainer.train()


# -- the mechanism ---------------------------------------------------------------------------------------------------


@pytest.fixture
def model(make_model) -> nn.Module:
    return make_model(attention_dropout=0.0).double()


def _plan(model: nn.Module, layers: str):
    return make_plan(model, "explicit", train_layers=layers)


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    ids = torch.randint(3, 60, (2, 8), generator=torch.Generator().manual_seed(seed))
    model(input_ids=ids, labels=ids).loss.backward()


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_a_warm_up_is_a_step_with_a_fraction_of_the_learning_rate(kind, model):
    def optimizer_of(parameters) -> torch.optim.Optimizer:
        if kind == "sgd":
            return torch.optim.SGD(parameters, lr=0.1, momentum=0.5, weight_decay=0.01)
        return torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.01)

    reference = copy.deepcopy(model)
    optimizer = optimizer_of(model.parameters())
    allocation = Allocation(model, optimizer, warmup_steps=4, keep_state=False)
    allocation.put_into_force(_plan(model, "1"))
    allocation.put_into_force(_plan(model, "1,2"), step=7)
    groups = [{"params": list(reference.model.layers[layer].parameters())} for layer in (1, 2)]
    by_hand = optimizer_of(groups)
    for step in range(7, 12):
        by_hand.param_groups[1]["lr"] = 0.1 * min((step - 7 + 1) / 4, 1)
        _step(model, optimizer, step)
        allocation.before_update(step)
        optimizer.step()
        allocation.after_update()
        _step(reference, by_hand, step)
        by_hand.step()
        for each in (model, reference):
            each.zero_grad()
    for one, other in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("keep", [False, True])
def test_the_state_of_what_is_frozen_is_freed_or_kept(keep, model):
    optimizer = torch.optim.AdamW(model.parameters())
    allocation = Allocation(model, optimizer, warmup_steps=0, keep_state=keep)
    allocation.put_into_force(_plan(model, "0,1"))
    _step(model, optimizer, 0)
    optimizer.step()
    frozen = model.model.layers[1].mlp.up_proj.weight
    moments = optimizer.state[frozen]["exp_avg"].clone()
    allocation.put_into_force(_plan(model, "0"), step=1)
    assert frozen not in optimizer.state
    assert frozen.grad is None

    saved = copy.deepcopy(optimizer.state_dict())
    assert ("layertracer_kept" in saved) == keep
    optimizer.load_state_dict(saved)
    allocation.put_into_force(_plan(model, "0,1"), step=2)
    if keep:
        assert torch.equal(optimizer.state[frozen]["exp_avg"], moments)
        assert optimizer.state[frozen]["step"] == 1
    else:
        assert frozen not in optimizer.state


@pytest.mark.parametrize("settings", [{}, {"fused": True}, {"capturable": True}], ids=str)
def test_steps_are_counted_where_the_optimizer_counts_them(settings, model):
    """On another device than the CPU, which the meta device stands for."""
    model = model.to("meta")
    optimizer = torch.optim.AdamW(model.parameters())
    optimizer.param_groups[0].update(settings)
    allocation = Allocation(model, optimizer, warmup_steps=0, keep_state=True)
    allocation.put_into_force(_plan(model, "0"))
    name, device = "model.layers.1.mlp.up_proj.weight", torch.device("meta" if settings else "cpu")
    frozen = model.get_parameter(name)
    kept = {"step": torch.tensor(3.0), "exp_avg": torch.zeros(frozen.shape), "exp_avg_sq": torch.zeros(frozen.shape)}
    optimizer.load_state_dict(optimizer.state_dict() | {"layertracer_kept": {name: kept}})
    allocation.put_into_force(_plan(model, "0,1"), step=1)
    state = optimizer.state[frozen]
    assert state["exp_avg"].device == state["exp_avg_sq"].device == torch.device("meta")
    assert state["step"].device == device


def test_what_a_checkpoint_kept_goes_to_the_cpu_wherever_it_was_loaded(model):
    optimizer = torch.optim.AdamW(model.parameters())
    allocation = Allocation(model, optimizer, warmup_steps=0, keep_state=True)
    allocation.put_into_force(_plan(model, "0"))
    elsewhere = {"model.layers.1.mlp.up_proj.weight": {"exp_avg": torch.zeros(2, device="meta")}}
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):  # so it was to be copied
        optimizer.load_state_dict(optimizer.state_dict() | {"layertracer_kept": elsewhere})


def test_a_second_run_of_a_trainer_begins_anew(make_model, make_args, token_dataset, quick):
    trainer = LayerTracerTrainer(
        model=make_model(),
        args=make_args(max_steps=3, learning_rate=1e-9),
        train_dataset=token_dataset,
        layertracer_config=quick(strategy="grass", change_steps=1, thaw_warmup_steps=1, keep_optimizer_state=True),
    )
    trainer.train()
    first = [record.model_dump() for record in trainer.layertracer_report.plans]
    assert len(first) > 1
    kept = trainer.optimizer.optimizer.state_dict()["layertracer_kept"]
    assert kept

    begun: list[Any] = []

    class Look(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            begun.append(dict(trainer.optimizer.optimizer.state_dict()["layertracer_kept"]))

    trainer.add_callback(Look())
    trainer.train()
    assert begun == [{}]
    second = trainer.layertracer_report.plans
    # Layers that have not had a gradient in this run come first again.
    assert [record.plan.trained_layers for record in second[:2]] == [
        plan["plan"]["trained_layers"] for plan in first[:2]
    ]
    assert [score is None for score in second[1].seen] == [score is None for score in first[1]["seen"]]


def test_bytes_of_gradients_and_states_fall_as_arithmetic_says(model):
    model = model.float()
    optimizer = torch.optim.AdamW(model.parameters())
    allocation = Allocation(model, optimizer, warmup_steps=0, keep_state=False)
    for step, layers in enumerate(("0,1,2", "1", "1,3")):
        plan = _plan(model, layers)
        allocation.put_into_force(plan, step)
        _step(model, optimizer, step)
        optimizer.step()
        gradients = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
        states = sum(v.nbytes for state in optimizer.state.values() for v in state.values() if v.dim())
        assert gradients == plan.savings.gradient_bytes
        assert states == plan.savings.optimizer_bytes
        model.zero_grad()


def test_an_optimizer_that_averages_over_all_steps_is_refused(model):
    optimizer = torch.optim.SGD(
        [{"params": list(model.parameters()), "train_mode": True}]
    )  # as schedule-free ones have it
    with pytest.raises(LayerTracerError, match="SGD averages over all steps"):
        Allocation(model, optimizer, warmup_steps=0, keep_state=False)


def test_an_optimizer_that_lacks_a_parameter_is_refused(model):
    optimizer = torch.optim.AdamW(model.model.parameters())
    with pytest.raises(LayerTracerError, match=r"AdamW lacks 1, such as lm_head\.weight"):
        Allocation(model, optimizer, warmup_steps=0, keep_state=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "lisa", "change_steps": 0}, "change_steps"),
        ({"strategy": "lisa", "change_steps": 2, "thaw_warmup_steps": 3}, "longer than change_steps=2"),
        ({"strategy": "schedule", "final_freeze_ratio": 1.0}, "final_freeze_ratio"),
        ({"strategy": "schedule", "frozen_end": "middle"}, "frozen_end must be one of deep, shallow"),
        ({"strategy": "adaptive", "hysteresis": -1}, "hysteresis"),
        ({"strategy": "adaptive", "measure": "context"}, "measure='context' is not measured again during training"),
        ({"strategy": "freeze-deep", "change_steps": 3}, "has no option change_steps"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options, message):
    with pytest.raises(LayerTracerError, match=message):
        LayerTracerConfig(**options)


def test_a_boundary_stays_where_the_model_does_not_change(make_model, make_args, token_dataset, quick):
    """Some of the probes show other layers than all do; that is no change of the model."""
    model = make_model(num_hidden_layers=12)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15, generator=torch.Generator().manual_seed(parameter.numel()))
        embeddings = model.get_input_embeddings().weight
        half = len(embeddings) // 2
        embeddings[:half] *= 30
        embeddings[half:] *= 0.3
    kinds = [0] * 3 + [half] * 9  # in this order, the first ones are all of a kind
    probes = [Probe(tuple(first + place + i for i in range(3, 8)), 7) for place, first in enumerate(kinds)]
    args = make_args(max_steps=3, learning_rate=0.0, weight_decay=0.0)
    trainer = LayerTracerTrainer(
        model=model,
        args=args,
        train_dataset=token_dataset,
        probes=probes,
        layertracer_config=quick(
            strategy="adaptive",
            perturbation="skip",
            hysteresis=0,
            change_steps=1,
            thaw_warmup_steps=1,
            change_probes=4,
        ),
    )
    trainer.train()
    report = trainer.layertracer_report
    assert [record.step for record in report.plans] == [0]
    seen = report.plans[0].seen
    assert len(seen) == 12
    assert seen != pytest.approx(report.sensitivity.mean, rel=0.1)
    chosen = diagnose(model, [probes[place] for place in (0, 3, 6, 9)], config=DiagnosisConfig(perturbation="skip"))
    assert seen == nearly(chosen.sensitivity.mean, abs=1e-6)


# -- a real kill -----------------------------------------------------------------------------------------------------


def test_a_killed_run_goes_on_to_the_same_losses(tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = tmp_path / "run"
    command = [sys.executable, str(SCRIPTS / "train_slowly.py"), str(run), "lisa"]
    process = subprocess.Popen(command, env=environment)
    kill_when(process, (run / "checkpoint-4" / "trainer_state.json").is_file)

    script = load_script(SCRIPTS / "train_slowly.py")
    resumed = script.make_trainer(run, script.CHANGING, logging=1)
    resumed.train(resume_from_checkpoint=True)
    whole = script.make_trainer(tmp_path / "whole", script.CHANGING, logging=1)
    whole.train()
    assert [r.step for r in resumed.layertracer_report.plans] == [r.step for r in whole.layertracer_report.plans]
    ours, theirs = (
        {entry["step"]: entry["loss"] for entry in trainer.state.log_history if "loss" in entry}
        for trainer in (resumed, whole)
    )
    assert len(ours) == 12
    assert ours == pytest.approx(theirs, abs=1e-6)
    assert_close_weights(resumed.model, whole.model)
