"""Memory of a training step: what is estimated before against what a real step takes, in a process of its own.

`python -m benchmarks estimates` takes a few settings, `python -m benchmarks.estimates` every one of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import astuple, dataclass
from itertools import product

import psutil
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, Gemma3TextConfig, PreTrainedConfig, Trainer, TrainingArguments
from transformers.utils import logging

from hf_layertracer import apply_plan, estimate_training, make_plan
from hf_layertracer.demo.model import demo_model
from hf_layertracer.modeling.devices import peak_bytes
from hf_layertracer.modeling.loading import load_config
from hf_layertracer.records import LayerPlan
from tests.support.profiling import profiled_peak

from .allocation import begin_anew


BATCH, LENGTH = 2, 128
# Memory does not depend on what the weights are, so shapes are enough.
_GEMMA = {
    "vocab_size": 262144, "hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18, "head_dim": 256,
    "num_attention_heads": 4, "num_key_value_heads": 1, "sliding_window": 512, "dtype": "float32",
}  # fmt: skip
MODELS = ("SmolLM2-135M", "Gemma-3-270m")
ADAMW, ADAFACTOR = "adamw_torch_fused", "adafactor"


@dataclass(frozen=True)
class Setting:
    """A training step."""

    model: str
    strategy: str
    checkpointing: bool
    optimizer: str = ADAMW
    batch: int = BATCH
    length: int = LENGTH

    def __str__(self) -> str:
        checkpointing = ", activation checkpointing" if self.checkpointing else ""
        return f"{self.model}, {self.strategy}{checkpointing}, {self.optimizer}, {self.batch} x {self.length}"


FEW = [
    Setting(model, strategy, checkpointing)
    for model in MODELS
    for strategy, checkpointing in (("full", False), ("freeze-deep", False), ("freeze-deep", True))
] + [
    Setting(MODELS[0], "lora", False, ADAFACTOR, 1, 512),
    Setting(MODELS[0], "freeze-shallow", True, ADAFACTOR, 8, 32),
]
ALL = [
    Setting(model, strategy, checkpointing, optimizer, batch, length)
    for model, strategy, checkpointing, optimizer, (batch, length) in product(
        MODELS,
        ("full", "freeze-deep", "freeze-shallow", "lora"),
        (False, True),
        (ADAMW, ADAFACTOR),
        ((1, 512), (4, 128), (8, 32)),
    )
]


def configuration(name: str) -> PreTrainedConfig:
    """The configuration of a model, in float32."""
    config = load_config(str(demo_model())) if name == "SmolLM2-135M" else Gemma3TextConfig(**_GEMMA)
    config.dtype = torch.float32
    return config


def arguments(folder: str, setting: Setting) -> TrainingArguments:
    """The run."""
    return TrainingArguments(
        folder,
        per_device_train_batch_size=setting.batch,
        optim=setting.optimizer,
        activation_checkpointing=setting.checkpointing,
        use_cpu=True,
        report_to="none",
    )


def made(setting: Setting) -> tuple[nn.Module, LayerPlan | None]:
    """The model, with adapters where these train, and the plan."""
    model = AutoModelForCausalLM.from_config(configuration(setting.model))
    if setting.strategy == "lora":
        return get_peft_model(model, LoraConfig(r=8, target_modules="all-linear")), None
    return model, make_plan(model, setting.strategy)


def row(setting: Setting) -> tuple[str, str]:
    """Estimates and measures a setting."""
    with torch.device("meta"):
        skeleton, plan = made(setting)
    with tempfile.TemporaryDirectory() as folder:
        estimate = estimate_training(skeleton, plan, arguments(folder, setting), sequence_length=setting.length)
    command = [sys.executable, "-m", "benchmarks.estimates", json.dumps(list(astuple(setting)))]
    # What is freed goes back to the system, so that resident memory is what is in use.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    allocated, grown = map(int, done.stdout.split()[-2:])
    total, resident = estimate.total_bytes, grown + estimate.weights_bytes
    return (
        f"{setting}: estimated / given out by torch / resident, GiB",
        f"{total / 2**30:.2f} / {allocated / 2**30:.2f} / {resident / 2**30:.2f} "
        f"({total / allocated - 1:+.1%}, {total / resident - 1:+.1%})",
    )


def run() -> list[tuple[str, str]]:
    """Estimates and measures a few settings.

    Returns:
        `list[tuple[str, str]]`: Names and values.
    """
    return [row(setting) for setting in FEW]


def measure(setting: Setting) -> None:
    """Takes three steps; prints what torch held at the most, weights included, and what the process grew by."""
    logging.set_verbosity_error()
    model, plan = made(setting)
    if plan is not None:
        apply_plan(model, plan)
    with tempfile.TemporaryDirectory() as folder:
        make, settings = Trainer.get_optimizer_cls_and_kwargs(arguments(folder, setting), model)
    optimizer = make([p for p in model.parameters() if p.requires_grad], **settings)
    if setting.checkpointing:
        model.activation_checkpointing_enable()
    model.train()

    def step() -> None:
        tokens = torch.randint(0, 40000, (setting.batch, setting.length))
        model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    before = psutil.Process().memory_info().rss
    step()
    begin_anew()
    step()
    grown = peak_bytes(torch.device("cpu"))[0] - before
    state = sum(v.nbytes for values in optimizer.state.values() for v in values.values() if torch.is_tensor(v))
    weights = sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
    print(weights + state + profiled_peak(step), grown)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(Setting(*json.loads(sys.argv[1])))
    else:
        logging.set_verbosity_error()
        for each in ALL:
            print(*row(each), sep=" | ", flush=True)
