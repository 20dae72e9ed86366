"""Starts runs in separate processes, watches them, and lets none outlive its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import psutil
from transformers.utils import logging as transformers_logging

from ..errors import LayerTracerError
from ..text import one_line
from .folder import living_process, read_json, write_json


_WATCHED = "--end-with-parent"
_TORCH_WRITER = "inline_container.cc"  # all that torch.save says of a disk that is full
_POLL = 0.2  # seconds
_PATIENCE = 60  # seconds that an orphan of an earlier run has to end


def run_module(
    module: str, folder: Path, log: Path, failure: Path, *, processes: int = 1, watch: Callable[[], None] | None = None
) -> str | None:
    """Runs `python -m MODULE FOLDER` and waits for it.

    Args:
        module (`str`): Name of the module, which calls [`run_as_child`].
        folder (`Path`): Its argument.
        log (`Path`): Where its output goes.
        failure (`Path`): Where it says why it failed.
        processes (`int`, *optional*, defaults to `1`): With more than one, `accelerate launch` starts them.
        watch (`Callable`, *optional*): Called a few times a second.

    Returns:
        `str` or `None`: Why it failed, on one line.
    """
    _wait_for_orphan(failure)
    failure.unlink(missing_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    launcher = [sys.executable]
    if processes > 1:
        # Said to be GPUs, as accelerate starts a single process otherwise; without GPUs it uses gloo on CPUs.
        launcher += ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)]
        launcher += ["--num_machines", "1", "--main_process_port", "0"]
        launcher += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    command = [*launcher, "-m", module, str(folder), _WATCHED]
    try:
        with log.open("ab") as output:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT)
    except OSError as error:
        raise LayerTracerError(f"Could not start a run: {error.strerror or error}.") from error
    try:
        while process.poll() is None:
            if watch is not None:
                watch()
            time.sleep(_POLL)
    finally:
        # The child ends when its standard input does: also where this process is killed.
        process.stdin.close()
        process.wait()
    return None if process.returncode == 0 else _cause(process.returncode, log, failure)


def run_as_child(work: Callable[[], None], failure: Path) -> None:
    """What a module that is run by [`run_module`] does: the work, and a note of why it failed.

    Args:
        work (`Callable`): The work.
        failure (`Path`): Where to write why it failed.
    """
    if _WATCHED in sys.argv:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    transformers_logging.disable_progress_bar()  # the output goes to a file
    first = int(os.environ.get("RANK", "0")) == 0
    process = psutil.Process()
    try:
        if first:
            write_json(_mark(failure), {"pid": process.pid, "started": process.create_time()})
        work()
    except Exception as error:
        traceback.print_exc()
        cause = str(error) if isinstance(error, LayerTracerError) else f"{type(error).__name__}: {error}"
        if _TORCH_WRITER in cause:
            cause = f"A checkpoint could not be written: is the disk full? ({cause})"
        write_json(failure, {"cause": one_line(cause, 500)})
        sys.exit(1)
    finally:
        if first:
            _mark(failure).unlink(missing_ok=True)


def _end_with_parent() -> None:
    # Not sys.stdin, whose lock would be held when the interpreter ends.
    os.read(0, 1)
    os._exit(1)


def _mark(failure: Path) -> Path:
    return failure.with_name("process.json")


def _wait_for_orphan(failure: Path) -> None:
    """Of a run whose parent was killed, the process may take a moment to notice."""
    began = time.monotonic()
    while (pid := living_process(read_json(_mark(failure)))) is not None:
        if time.monotonic() - began > _PATIENCE:
            raise LayerTracerError(f"Process {pid} still works in {failure.parent}: end it and start again.")
        time.sleep(_POLL)


def _cause(returncode: int, log: Path, failure: Path) -> str:
    if (told := read_json(failure)) is not None:
        return told["cause"]
    if returncode < 0:
        name = signal.Signals(-returncode).name
        memory = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        cause = f"The process was ended by {name}{memory}."
    else:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "it printed nothing")
        cause = f"Exit status {returncode}: {one_line(last, 300)}"
    write_json(failure, {"cause": cause})
    return cause
