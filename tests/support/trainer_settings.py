"""What Trainer documents, setting by setting: read by `test_side_by_side.py` and by `docs/compatibility.md`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import EarlyStoppingCallback, EvalPrediction


EACH_STEP = {"logging_strategy": "steps", "logging_steps": 1}
EVALUATING = {**EACH_STEP, "eval_strategy": "steps", "eval_steps": 2}
SAVING = {"save_strategy": "steps", "save_steps": 2}


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Share of tokens that are predicted; also how much else Trainer hands over."""
    found = prediction.predictions if prediction.predictions.ndim == 2 else prediction.predictions.argmax(-1)
    extra = {
        name: len(getattr(prediction, name)) for name in ("inputs", "losses") if getattr(prediction, name) is not None
    }
    return {"accuracy": float(np.mean(found[:, :-1] == prediction.label_ids[:, 1:])), **extra}


class Batchwise:
    """Metrics that are gathered batch by batch."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def __call__(self, prediction: EvalPrediction, compute_result: bool = False) -> dict[str, float]:
        self.found.append(float(prediction.predictions.float().mean()))
        return {"mean_logit": sum(self.found) / len(self.found)} if compute_result else {}


def half_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
    """A loss function of the user's."""
    return outputs["logits"].float().square().mean() / 2


def sgd(model: torch.nn.Module) -> tuple[torch.optim.Optimizer, Any]:
    """An optimizer and a schedule of the user's."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)


# Name: arguments of TrainingArguments, and of the trainer (functions marked "make" are called with the model).
SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "seed, data_seed": ({"seed": 7, "data_seed": 8}, {}),
    "num_train_epochs": ({"max_steps": -1, "num_train_epochs": 1, "per_device_train_batch_size": 8}, {}),
    "gradient_accumulation_steps": ({"gradient_accumulation_steps": 2, **EACH_STEP}, {}),
    "average_tokens_across_devices=False": (
        {"gradient_accumulation_steps": 2, "average_tokens_across_devices": False}, {}
    ),
    "lr_scheduler_type cosine, warmup_steps": ({"lr_scheduler_type": "cosine", "warmup_steps": 2, **EACH_STEP}, {}),
    "lr_scheduler_type polynomial, lr_scheduler_kwargs": (
        {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"power": 2.0}, **EACH_STEP}, {}
    ),
    "lr_scheduler_type reduce_lr_on_plateau": (
        {"lr_scheduler_type": "reduce_lr_on_plateau", "metric_for_best_model": "loss", **EVALUATING}, {}
    ),
    "lr_scheduler_type constant": ({"lr_scheduler_type": "constant", **EACH_STEP}, {}),
    "optim sgd": ({"optim": "sgd"}, {}),
    "optim adafactor": ({"optim": "adafactor"}, {}),
    "optim rmsprop": ({"optim": "rmsprop"}, {}),
    "optim adamw_torch": ({"optim": "adamw_torch", "adam_beta1": 0.8, "adam_epsilon": 1e-6}, {}),
    "weight_decay, max_grad_norm": ({"weight_decay": 0.3, "max_grad_norm": 0.05, **EACH_STEP}, {}),
    "max_grad_norm=0": ({"max_grad_norm": 0.0}, {}),
    "label_smoothing_factor": ({"label_smoothing_factor": 0.1, **EACH_STEP}, {}),
    "neftune_noise_alpha": ({"neftune_noise_alpha": 5.0}, {}),
    "bf16": ({"bf16": True}, {}),
    "bf16_full_eval": ({"bf16_full_eval": True, **EVALUATING}, {}),
    "activation_checkpointing": ({"activation_checkpointing": True}, {}),
    "activation_checkpointing, reentrant": (
        {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": True}}, {}
    ),
    "torch_empty_cache_steps": ({"torch_empty_cache_steps": 1}, {}),
    "auto_find_batch_size": ({"auto_find_batch_size": True}, {}),
    "full batch order: train_sampling_strategy sequential": ({"train_sampling_strategy": "sequential"}, {}),
    "train_sampling_strategy group_by_length": ({"train_sampling_strategy": "group_by_length"}, {}),
    "dataloader_drop_last, dataloader_pin_memory": (
        {"dataloader_drop_last": True, "per_device_train_batch_size": 5, "max_steps": -1, "num_train_epochs": 1}, {}
    ),
    "include_num_input_tokens_seen": ({"include_num_input_tokens_seen": "all", **EACH_STEP}, {}),
    "logging_first_step, logging_steps": ({"logging_strategy": "steps", "logging_steps": 2, "logging_first_step": True}, {}),
    "eval_strategy steps": (EVALUATING, {}),
    "eval_strategy epoch": (
        {"eval_strategy": "epoch", "max_steps": -1, "num_train_epochs": 2, "per_device_train_batch_size": 8}, {}
    ),
    "eval_on_start, eval_delay": ({**EVALUATING, "eval_on_start": True, "eval_delay": 2}, {}),
    "eval_accumulation_steps": ({**EVALUATING, "eval_accumulation_steps": 1}, {"compute_metrics": accuracy}),
    "eval_do_concat_batches": ({**EVALUATING, "per_device_eval_batch_size": 8}, {}),
    "prediction_loss_only": ({**EVALUATING, "prediction_loss_only": True}, {}),
    "compute_metrics": (EVALUATING, {"compute_metrics": accuracy}),
    "include_for_metrics": (
        {**EVALUATING, "include_for_metrics": ["inputs", "loss"]}, {"compute_metrics": accuracy}
    ),
    "batch_eval_metrics": ({**EVALUATING, "batch_eval_metrics": True}, {"make compute_metrics": lambda _: Batchwise()}),
    "preprocess_logits_for_metrics": (
        EVALUATING,
        {"compute_metrics": accuracy, "preprocess_logits_for_metrics": lambda logits, labels: logits.argmax(-1)},
    ),
    "eval_dataset as a dictionary": (EVALUATING, {"eval_dataset": "dictionary"}),
    "load_best_model_at_end": (
        {**EVALUATING, **SAVING, "load_best_model_at_end": True, "metric_for_best_model": "eval_loss"}, {}
    ),
    "save_total_limit, save_only_model": ({**SAVING, "save_steps": 1, "save_total_limit": 1, "save_only_model": True}, {}),
    "early stopping": (
        {**EVALUATING, **SAVING, "eval_steps": 1, "save_steps": 1, "load_best_model_at_end": True, "learning_rate": 10.0},
        {"make callbacks": lambda _: [EarlyStoppingCallback(1)]},
    ),
    "compute_loss_func": (EACH_STEP, {"compute_loss_func": half_loss}),
    "optimizers": ({}, {"make optimizers": sgd}),
    "optimizer_cls_and_kwargs": ({}, {"optimizer_cls_and_kwargs": (torch.optim.Adam, {"lr": 1e-3})}),
    "remove_unused_columns=False": ({"remove_unused_columns": False}, {}),
    "restore_callback_states_from_checkpoint": ({"restore_callback_states_from_checkpoint": True, **SAVING}, {}),
}  # fmt: skip


def trainer_arguments(name: str, model: Any, dataset: Any) -> dict[str, Any]:
    """The arguments of a trainer under a setting.

    Args:
        name (`str`): Name of the setting.
        model (`nn.Module`): The model.
        dataset (`Dataset`): The rows.

    Returns:
        `dict[str, Any]`: Names and values.
    """
    found: dict[str, Any] = {"eval_dataset": dataset}
    for key, value in SETTINGS[name][1].items():
        made: Callable[[Any], Any] = value
        found[key.removeprefix("make ")] = made(model) if key.startswith("make ") else value
    if found["eval_dataset"] == "dictionary":
        found["eval_dataset"] = {"one": dataset, "two": dataset.select(range(4))}
    return found
