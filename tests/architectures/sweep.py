"""Checks model types in separate processes: one that crashes, hangs or eats memory ends no other."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any


GROUP = 16
SECONDS = 300  # of one type; the slowest takes a tenth of it
BYTES = 16 << 30  # of address space; torch alone reserves several
ROOT = Path(__file__).parents[2]


def sweep(model_types: Sequence[str], processes: int) -> Iterator[dict[str, Any]]:
    """Results of all types, group by group."""
    groups = [list(model_types[start : start + GROUP]) for start in range(0, len(model_types), GROUP)]
    with ThreadPoolExecutor(processes) as pool:
        for results in pool.map(check_group, groups):
            yield from results


def check_group(model_types: Sequence[str]) -> list[dict[str, Any]]:
    """Results of some types; a process that ends early is started again with the types after the one that ended it."""
    results: list[dict[str, Any]] = []
    while left := model_types[len(results) :]:
        command = [sys.executable, "-m", "tests.architectures.sweep", *left]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        results += [json.loads(line) for line in run.stdout.splitlines()]
        if len(results) < len(model_types):
            why = run.stderr.strip().splitlines()[-1:] or [""]
            ended = {"diagnosis": f"the process ended with {run.returncode}: {why[0]}"}
            results.append({"model_type": model_types[len(results)], "architecture": "", "checks": ended})
    return results


def _work(model_types: Sequence[str]) -> None:
    """In its own process: one line of JSON a type, as soon as it is known."""
    import warnings

    from transformers.utils import logging

    from .checks import check_type

    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    out = sys.stdout
    for model_type in model_types:
        signal.alarm(SECONDS)  # without a handler, it ends the process
        with redirect_stdout(sys.stderr):
            result = check_type(model_type)
        print(json.dumps(result), file=out, flush=True)


if __name__ == "__main__":
    _work(sys.argv[1:])
