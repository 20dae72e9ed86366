"""Peak memory while what trains shrinks: does it fall as arithmetic says?"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback, TrainingArguments
from transformers.utils import logging

from hf_layertracer import LayerTracerConfig, LayerTracerTrainer
from hf_layertracer.modeling.devices import default_device, peak_bytes, reset_peak


PERIOD, PERIODS = 3, 3


class Peaks(TrainerCallback):
    """Peak memory of each period, less its first step, which still holds what was freed."""

    def __init__(self) -> None:
        self.bytes: list[int] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % PERIOD == 1:
            begin_anew()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % PERIOD == 0:
            self.bytes.append(peak_bytes(default_device())[0])


def begin_anew() -> None:
    """Forgets the peak so far, of an accelerator or, on Linux, of this process."""
    reset_peak(default_device())
    refs = Path("/proc/self/clear_refs")
    if refs.exists():
        refs.write_text("5")


def run() -> list[tuple[str, str]]:
    """Measures in a process of its own, whose allocator gives back what is freed.

    Returns:
        `list[tuple[str, str]]`: Names and values.
    """
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.allocation"], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return [
        (name, value) for name, _, value in (line.partition("\t") for line in done.stdout.splitlines() if "\t" in line)
    ]


def measure() -> None:
    """Trains a random model of 12 layers of which fewer and fewer train, and prints the rows."""
    logging.set_verbosity_error()
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=1000, hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12
        )
    )  # fmt: skip
    ids = torch.randint(0, 1000, (16, 32)).tolist()
    config = LayerTracerConfig(
        strategy="schedule", freeze_ratio=0.1, final_freeze_ratio=0.9, frozen_end="deep", change_steps=PERIOD,
        thaw_warmup_steps=0, num_probes=1, perturbation="skip",
    )  # fmt: skip
    peaks = Peaks()
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            folder, max_steps=PERIOD * PERIODS, per_device_train_batch_size=1, save_strategy="no", report_to="none",
            logging_strategy="no", disable_tqdm=True, max_grad_norm=0, optim="adamw_torch_fused",
            dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = LayerTracerTrainer(
            model=model,
            args=args,
            train_dataset=Dataset.from_dict({"input_ids": ids, "labels": ids}),
            layertracer_config=config,
            callbacks=[peaks],
        )
        trainer.train()
    plans = [record.plan for record in trainer.layertracer_report.plans]
    needs = [plan.savings.gradient_bytes + plan.savings.optimizer_bytes for plan in plans]
    print(f"layers that train, period by period\t{', '.join(str(len(plan.trained_layers)) for plan in plans)}")
    for period in range(1, len(plans)):
        fell, should = peaks.bytes[period - 1] - peaks.bytes[period], needs[period - 1] - needs[period]
        said = f"{fell / 2**20:.0f} MiB / {should / 2**20:.0f} MiB = {fell / should:.2f}"
        print(f"fall of the peak / fall by arithmetic, change {period}\t{said}")


if __name__ == "__main__":
    measure()
