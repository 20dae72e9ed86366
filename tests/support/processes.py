"""Processes that tests start, wait for and kill, and the scripts that they run."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType


_PATIENCE = 240  # seconds


def wait_for(process: subprocess.Popen, condition: Callable[[], object]) -> None:
    """Waits until something holds while a process runs, which has to reach it before it ends."""
    began = time.monotonic()
    while not condition():
        assert process.poll() is None, process.communicate()[0] or "the process ended before it could be killed"
        assert time.monotonic() - began < _PATIENCE, f"not reached in {_PATIENCE} s"
        time.sleep(0.01)


def kill_when(process: subprocess.Popen, condition: Callable[[], object]) -> None:
    """Kills a process with SIGKILL as soon as something holds."""
    try:
        wait_for(process, condition)
    finally:
        process.send_signal(signal.SIGKILL)
        code = process.wait()
    assert code == -signal.SIGKILL


def load_script(path: Path) -> ModuleType:
    """A script of the tests as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
