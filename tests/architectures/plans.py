"""What a plan does to a model, and a training step under it."""

from __future__ import annotations

import copy
import tempfile
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainingArguments

from hf_layertracer import LayerTracerConfig, LayerTracerTrainer, Probe, apply_plan, make_plan


ROW = list(range(4, 16))


def check_freeze(model: nn.Module, report: Any) -> str:
    """A plan that trains one layer trains that layer's parameters, and no other of the text model."""
    path = report.model.layers_path
    aliases: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        aliases.setdefault(id(parameter), set()).add(name)
    used = _used_by_text(model)
    was = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    for index in range(report.num_layers):
        plan = make_plan(
            model,
            "explicit",
            train_layers=[index],
            layers_path=path,
            train_embeddings=False,
            train_norm=False,
            train_head=False,
        )
        applied = apply_plan(model, plan)
        trains = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        applied.undo()
        for name, parameter in model.named_parameters():
            inside = any(alias.startswith(f"{path}.{index}.") for alias in aliases[id(parameter)])
            if inside and not trains[name] and was[name]:
                return f"{name} does not train with layer {index}"
            if not inside and trains[name] and (name in used or f"{path}." in name):
                return f"{name} trains with layer {index}"
    if {name: parameter.requires_grad for name, parameter in model.named_parameters()} != was:
        return "undoing a plan does not restore what trained before"
    return ""


def check_training(model: PreTrainedModel, report: Any) -> str:
    """One step under the trainer changes the trained parameters and no other."""
    model = copy.deepcopy(model)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    received: set[str] = set()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(
                lambda p, name=name: received.add(name) if bool(p.grad.abs().sum() > 0) else None
            )
    ids = torch.tensor([ROW, ROW])
    loss = None
    try:
        copy.deepcopy(model).train()(input_ids=ids, labels=ids).loss.backward()
    except Exception:
        loss = next_token_loss
        try:
            loss(copy.deepcopy(model).train()(input_ids=ids), ids).backward()
        except Exception as error:
            return f"n/a: transformers itself cannot train it on text ({type(error).__name__}: {error})"
    with tempfile.TemporaryDirectory() as folder:
        trainer = LayerTracerTrainer(
            model=model,
            args=TrainingArguments(
                folder,
                max_steps=1,
                per_device_train_batch_size=2,
                learning_rate=1e-2,
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
                use_cpu=True,
                lr_scheduler_type="constant",
                logging_strategy="no",
            ),
            train_dataset=[{"input_ids": ROW, "labels": ROW} for _ in range(2)],
            probes=[Probe((5, 80, 31, 7, 40, 9), 10), Probe((33, 34, 21, 6), 17)],
            layertracer_config=LayerTracerConfig(repeats=1),
            compute_loss_func=loss,
        )
        trainer.train()
    plan = trainer.layertracer_report.plan if trainer.layertracer_report else None
    if plan is None:
        return "the trainer went on without a plan"
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    path = plan.layers_path
    own = {index: [n for n in before if n.startswith(f"{path}.{index}.")] for index in range(plan.num_layers)}
    for index in plan.frozen_layers:
        moved = changed.intersection(own[index])
        if moved:
            return f"frozen layer {index} changed: {sorted(moved)[0]}"
    if changed - trained:
        return f"frozen parameters changed: {sorted(changed - trained)[:2]}"
    if received - changed:
        return f"parameters with a gradient did not change: {sorted(received - changed)[:2]}"
    for index in plan.trained_layers:
        if not changed.intersection(own[index]) and own[index]:
            return f"trained layer {index} did not change"
    return ""


def next_token_loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    """The usual loss, for a model whose own needs more than text: what a user gives the trainer as compute_loss_func."""
    return nn.functional.cross_entropy(outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


def _used_by_text(model: PreTrainedModel) -> set[str]:
    """Names of the parameters that a text-only training step gives a gradient."""
    model = copy.deepcopy(model).train()
    ids = torch.tensor([ROW])
    model(input_ids=ids, use_cache=False).logits.square().sum().backward()
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and bool(parameter.grad.any())
    }
