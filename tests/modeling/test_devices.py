from __future__ import annotations

import subprocess
import sys

import torch

from hf_layertracer.modeling.devices import default_device, free_bytes, peak_bytes, random_states


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
