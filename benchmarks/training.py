"""Training steps of the demo model: what freezing gains in a bare loop, and how much of it the Trainer keeps."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from io import StringIO

import torch
from datasets import Dataset
from torch import nn
from transformers import AutoModelForCausalLM, TrainerCallback, TrainingArguments
from transformers.utils import logging

from hf_layertracer import LayerTracerConfig, LayerTracerTrainer, Probe, apply_plan, make_plan
from hf_layertracer.demo.model import demo_model
from hf_layertracer.modeling.devices import peak_bytes


STEPS, ROUNDS, BATCH, LENGTH = 3, 3, 4, 128
STRATEGIES = ("full", "freeze-deep", "freeze-shallow")


class StepClock(TrainerCallback):
    """Times each optimizer step of a trainer."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, *args, **kwargs) -> None:
        self.began = time.perf_counter()

    def on_step_end(self, *args, **kwargs) -> None:
        self.seconds.append(time.perf_counter() - self.began)


def bare_loop(model: nn.Module, rows: torch.Tensor, steps: int) -> list[float]:
    """Trains with nothing but a model and an optimizer.

    Args:
        model (`nn.Module`): The model, with a plan in force.
        rows (`torch.Tensor`): Token ids of shape `(rows, positions)`.
        steps (`int`): Steps to time, after one that is not timed.

    Returns:
        `list[float]`: Seconds of each step.
    """
    model.train()
    seconds = []
    # Fused, as the Trainer's default is: another implementation would compare optimizers.
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5, fused=True)
    for step in range(steps + 1):
        batch = rows[step * BATCH : (step + 1) * BATCH].to(model.device)
        start = time.perf_counter()
        model(input_ids=batch, labels=batch).loss.backward()
        nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def in_trainer(
    model: nn.Module, rows: torch.Tensor, steps: int, strategy: str, report: str, **arguments
) -> list[float]:
    """Trains the same way inside the Trainer.

    Args:
        model (`nn.Module`): The model.
        rows (`torch.Tensor`): Token ids of shape `(rows, positions)`.
        steps (`int`): Steps to time, after one that is not timed.
        strategy (`str`): The strategy.
        report (`str`): Folder of a report, so that no diagnosis is timed.
        arguments: Further `TrainingArguments`.

    Returns:
        `list[float]`: Seconds of each step.
    """
    ids = rows.tolist()
    clock = StepClock()
    dataset = Dataset.from_dict({"input_ids": ids, "labels": ids})
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        args = TrainingArguments(
            folder,
            max_steps=steps + 1,
            per_device_train_batch_size=BATCH,
            learning_rate=1e-5,
            report_to="none",
            save_strategy="no",
            logging_steps=1000,
            disable_tqdm=True,
            dataloader_pin_memory=False,
            **arguments,
        )
        trainer = LayerTracerTrainer(
            model=model,
            args=args,
            train_dataset=dataset,
            probes=[Probe((1, 2), 3)],
            layertracer_config=LayerTracerConfig(strategy=strategy, report=report),
            callbacks=[clock],
        )
        trainer.train()
    return clock.seconds[1:]


def run() -> list[tuple[str, str]]:
    """Times both strategies in both loops, in turn, and takes each one's peak memory in its own process.

    Returns:
        `list[tuple[str, str]]`: Rows of the results.
    """
    from hf_layertracer import DiagnosisConfig, diagnose

    logging.disable_progress_bar()
    folder = str(demo_model())
    rows = torch.randint(0, 49152, ((STEPS + 1) * BATCH, LENGTH), generator=torch.Generator().manual_seed(0))
    model = AutoModelForCausalLM.from_pretrained(folder)
    times: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as report:
        # Which probes the report holds does not matter here.
        diagnose(model, [Probe((1, 2, 3), 4)], config=DiagnosisConfig(repeats=1)).save_json(report)
        for _ in range(ROUNDS):
            for strategy in STRATEGIES:
                applied = apply_plan(model, make_plan(model, strategy))
                times.setdefault(("bare", strategy), []).extend(bare_loop(model, rows, STEPS))
                applied.undo()
                seconds = in_trainer(model, rows, STEPS, strategy, report)
                times.setdefault(("trainer", strategy), []).extend(seconds)
            for strategy in ("full", "freeze-shallow"):
                seconds = in_trainer(model, rows, STEPS, strategy, report, activation_checkpointing=True)
                times.setdefault(("checkpointing", strategy), []).extend(seconds)
                model.activation_checkpointing_disable()
                model.disable_input_require_grads()
    # Other work on the machine only ever adds to a step's time.
    best = {key: min(seconds) for key, seconds in times.items()}
    peaks = {strategy: _peak_in_own_process(folder, strategy) for strategy in STRATEGIES}
    results = []
    for strategy in STRATEGIES[1:]:
        gain = {loop: best[loop, "full"] / best[loop, strategy] for loop in ("bare", "trainer")}
        savings = make_plan(model, strategy).savings
        results += [
            (f"full / {strategy}, time of a step, bare loop", f"{gain['bare']:.2f}"),
            (f"full / {strategy}, time of a step, Trainer", f"{gain['trainer']:.2f}"),
            (f"gain of {strategy} that the Trainer keeps", f"{gain['trainer'] / gain['bare']:.2f}"),
            (
                f"full / {strategy}, FLOPs by arithmetic",
                f"{savings.flops_per_token_full / savings.flops_per_token:.2f}",
            ),
            (f"full / {strategy}, peak memory of the process", f"{peaks['full'] / peaks[strategy]:.2f}"),
        ]
    checkpointed = best["checkpointing", "full"] / best["checkpointing", "freeze-shallow"]
    return [
        *results,
        ("full / freeze-shallow, time of a step, Trainer with activation checkpointing", f"{checkpointed:.2f}"),
    ]


def _peak_in_own_process(folder: str, strategy: str) -> int:
    command = [sys.executable, "-m", "benchmarks.training", json.dumps([folder, strategy])]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def _measure_peak(folder: str, strategy: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    apply_plan(model, make_plan(model, strategy))
    rows = torch.randint(0, 49152, (4 * BATCH, LENGTH), generator=torch.Generator().manual_seed(0))
    bare_loop(model, rows, 3)
    print(peak_bytes(torch.device("cpu"))[0])


if __name__ == "__main__":
    logging.set_verbosity_error()
    _measure_peak(*json.loads(sys.argv[1]))
