"""How the diagnosis' time and memory grow with layers, width and probes, and the quick look's time with layers."""

from __future__ import annotations

import time

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from hf_layertracer import DiagnosisConfig, Probe, diagnose
from hf_layertracer.diagnosis.quick import QUICK_PROBES, quick_look
from hf_layertracer.modeling.accounting import peak_bytes


LAYERS, WIDTHS, PROBES = (8, 16, 32, 64), (64, 128, 256, 512), (8, 16, 32, 64)
LENGTH, REPEATS, ROUNDS = 16, 1, 2
BUDGET = 64 << 20


def make_model(layers: int = 16, width: int = 64) -> nn.Module:
    """A random Llama in which layers and width are free.

    Args:
        layers (`int`, *optional*, defaults to 16): Number of layers.
        width (`int`, *optional*, defaults to 64): Hidden width.

    Returns:
        `nn.Module`: The model.
    """
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1000,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 32,
        initializer_range=0.1,
    )
    return LlamaForCausalLM(config).eval()


def measure(model: nn.Module, probes: int = 8) -> tuple[float, int]:
    """Seconds of a diagnosis, the best of some, and the bytes of tensors that it holds at once beyond the model.

    Args:
        model (`nn.Module`): The model.
        probes (`int`, *optional*, defaults to 8): How many probes.

    Returns:
        `tuple[float, int]`: Seconds and bytes.
    """
    tokens = torch.randint(0, 1000, (probes, LENGTH), generator=torch.Generator().manual_seed(0)).tolist()
    asked = [Probe(row, number) for number, row in enumerate(tokens)]
    config = DiagnosisConfig(repeats=REPEATS, memory_budget=BUDGET)
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        diagnose(model, asked, config=config)
        seconds.append(time.perf_counter() - start)
    return min(seconds), peak_bytes(lambda: diagnose(model, asked, config=config))


def measure_quick(layers: int) -> float:
    """Processor seconds of a quick look, the least of some.

    Args:
        layers (`int`): Number of layers.

    Returns:
        `float`: Seconds.
    """
    model, config = make_model(layers), quick_look(DiagnosisConfig(memory_budget=BUDGET), layers)
    tokens = torch.randint(0, 1000, (QUICK_PROBES, LENGTH), generator=torch.Generator().manual_seed(0)).tolist()
    asked = [Probe(row, number) for number, row in enumerate(tokens)]
    seconds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        diagnose(model, asked, config=config)
        seconds.append(time.process_time() - start)
    return min(seconds)


def run() -> list[tuple[str, str]]:
    """Grows one of the three at a time; every figure is a ratio to the smallest.

    Returns:
        `list[tuple[str, str]]`: Rows of the results.
    """
    diagnose(make_model(8), [Probe((1, 2, 3), 4)], config=DiagnosisConfig(repeats=1))  # warm up
    series = {
        f"layers {_steps(LAYERS)}": [measure(make_model(layers=layers)) for layers in LAYERS],
        f"width {_steps(WIDTHS)}": [measure(make_model(width=width)) for width in WIDTHS],
        f"probes {_steps(PROBES)}": [measure(make_model(), probes) for probes in PROBES],
    }
    rows = []
    for name, measured in series.items():
        for what, values in zip(("time", "memory beyond the model"), zip(*measured, strict=True), strict=True):
            rows.append((f"{what}, {name}", ", ".join(f"{value / values[0]:.2f}" for value in values)))
    quick = [measure_quick(layers) for layers in LAYERS]
    rows.append(
        (
            f"processor time of a quick look, layers {_steps(LAYERS)} (linear: 1, 2, 4, 8)",
            ", ".join(f"{seconds / quick[0]:.2f}" for seconds in quick),
        )
    )
    largest = max(peak for measured in series.values() for _, peak in measured)
    rows.append((f"largest memory / memory_budget of {BUDGET >> 20} MiB", f"{largest / BUDGET:.2f}"))
    return rows


def _steps(values: tuple[int, ...]) -> str:
    return ", ".join(map(str, values))
