"""The one place that asks devices for names, memory and random states: a CPU, or whatever accelerator PyTorch runs on."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import psutil
import torch

from ..logs import get_logger
from ..text import dtype_name


logger = get_logger(__name__)


def default_device() -> torch.device:
    """The accelerator of this machine, or its CPU."""
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")


def this_machine() -> str:
    """The accelerators of this machine, or its CPU, in a few words."""
    device = default_device()
    if device.type != "cpu":
        name = torch.cuda.get_device_name() if device.type == "cuda" else device.type
        return f"{torch.accelerator.device_count()} x {name}"
    cores = len(psutil.Process().cpu_affinity()) if psutil.LINUX else psutil.cpu_count()
    return f"{platform.machine()}, {cores} CPU cores"


def free_bytes(device: torch.device) -> int:
    """Memory that is free: of an accelerator, or of the whole machine.

    Args:
        device (`torch.device`): The device.

    Returns:
        `int`: Bytes.
    """
    if device.type in ("cuda", "xpu"):
        return torch.get_device_module(device).mem_get_info(device)[0]
    return psutil.virtual_memory().available


def is_fast_in_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions of its own for matrix products in bfloat16."""
    if device.type == "cpu":
        known = torch.cpu.get_capabilities()
        return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def warn_if_emulated(dtype: torch.dtype, device: torch.device) -> None:
    """Says, once, that a CPU has no instructions for 16-bit floats: it takes several times as long as in float32.

    Args:
        dtype (`torch.dtype`): What is computed in.
        device (`torch.device`): Where.
    """
    if device.type != "cpu" or dtype not in (torch.bfloat16, torch.float16):
        return
    known = torch.cpu.get_capabilities()
    # Only where it was measured: PyTorch's fast kernels for these types begin with AVX-512.
    if known.get("architecture") == "x86_64" and not known.get("avx512_bw"):
        logger.warning_once(
            f"This CPU only emulates {dtype_name(dtype)}: float32, if it fits into memory, is several times faster here."
        )


def reset_peak(device: torch.device) -> None:
    """Lets [`peak_bytes`] begin anew where a device can; the peak of a process on a CPU cannot be reset."""
    if device.type in ("cuda", "xpu"):
        torch.get_device_module(device).reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> tuple[int, str]:
    """The most memory that was in use, and whose it is.

    Args:
        device (`torch.device`): The device that was worked on.

    Returns:
        `tuple[int, str]`: Bytes, and `"cuda"` or `"xpu"` for what PyTorch allocated there, `"process"` for the resident
        memory of this process.
    """
    if device.type in ("cuda", "xpu"):
        return torch.get_device_module(device).max_memory_allocated(device), device.type
    return _peak_of_process(), "process"


def random_states() -> list[torch.Tensor]:
    """The states of the accelerators' random generators; none where no accelerator has been used yet."""
    module = _initialized_module()
    return module.get_rng_state_all() if module is not None else []


def set_random_states(states: list[torch.Tensor]) -> None:
    """Puts back what [`random_states`] returned."""
    module = _initialized_module()
    if states and module is not None:
        module.set_rng_state_all(states)


def _initialized_module() -> Any | None:
    # Asking an accelerator that nobody uses would start it, with hundreds of MiB for its context.
    for module in (torch.cuda, torch.xpu):
        if module.is_initialized():
            return module
    return None


def _peak_of_process() -> int:
    status = Path("/proc/self/status")
    if status.is_file():
        # Not getrusage: on Linux its peak includes that of the process which started this one.
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) * 1024
    if psutil.WINDOWS:
        return psutil.Process().memory_info().peak_wset  # type: ignore[attr-defined]  # on Windows alone
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
