from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from hf_layertracer import Probe, diagnose
from hf_layertracer.modeling import devices
from hf_layertracer.modeling.devices import (
    default_device,
    free_bytes,
    peak_bytes,
    random_states,
    warn_if_emulated,
)


CPU = torch.device("cpu")


def test_a_cpu_has_memory_and_no_random_states_of_its_own():
    assert free_bytes(CPU) > 0
    if not torch.accelerator.is_available():
        assert default_device() == CPU
        assert random_states() == []


def test_the_peak_of_a_process_is_its_own_and_grows_with_what_it_holds():
    script = (
        "import torch; from hf_layertracer.modeling.devices import peak_bytes; cpu = torch.device('cpu');"
        "before, owner = peak_bytes(cpu); block = torch.ones(64 << 20); after, _ = peak_bytes(cpu);"
        "print(owner, after - before)"
    )
    held = torch.ones(128 << 20)  # 512 MiB here, which are no part of the other process
    here, _ = peak_bytes(CPU)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    owner, grown = done.stdout.split()
    assert owner == "process"
    assert 0.9 * (256 << 20) < int(grown) < 1.5 * (256 << 20)
    assert here > held.nbytes


OLD = {"architecture": "x86_64", "avx2": True, "avx512_bw": False, "avx512_bf16": False}
NEW = {**OLD, "avx512_bw": True, "avx512_bf16": True}


@pytest.fixture
def cpu_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], None]:
    """Gives this machine another CPU, which nothing has been said of yet."""

    def give(known: dict[str, Any]) -> None:
        type(devices.logger).warning_once.cache_clear()
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)

    return give


@pytest.mark.parametrize(
    ("known", "dtype", "device", "said"),
    [
        (OLD, torch.bfloat16, CPU, 1),
        (OLD, torch.float16, CPU, 1),
        (OLD, torch.float32, CPU, 0),
        (OLD, torch.bfloat16, torch.device("cuda"), 0),
        (NEW, torch.bfloat16, CPU, 0),
        ({"architecture": "aarch64"}, torch.bfloat16, CPU, 0),  # which of them are slow was not measured
    ],
)
def test_a_cpu_that_emulates_a_data_type_is_told_once(known, dtype, device, said, cpu_with, caplog):
    cpu_with(known)
    for _ in range(2):
        warn_if_emulated(dtype, device)
    assert caplog.text.count(f"only emulates {str(dtype).removeprefix('torch.')}") == said


@pytest.mark.skipif(torch.accelerator.is_available(), reason="the CPU is not what computes")
def test_whoever_computes_in_it_hears_of_it(cpu_with, tiny_llama, caplog):
    model, probes = tiny_llama(num_hidden_layers=2).bfloat16(), [Probe((5, 6, 7), 8)]
    cpu_with(NEW)
    diagnose(model, probes)
    assert "emulates" not in caplog.text
    cpu_with(OLD)
    diagnose(model, probes)
    assert caplog.text.count("only emulates bfloat16") == 1
