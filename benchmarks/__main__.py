"""Runs all benchmarks, or those that are named, and writes their ratios to `benchmarks/results.md`."""

from __future__ import annotations

import argparse
import platform
import re
from pathlib import Path

import torch
from transformers.utils import logging

from hf_layertracer.files import write_atomically

from . import allocation, coverage, estimates, hybrid, import_time, scaling, sensitivity, training


BENCHMARKS = {
    "import": import_time.run,
    "sensitivity": sensitivity.run,
    "coverage": coverage.run,
    "scaling": scaling.run,
    "training": training.run,
    "allocation": allocation.run,
    "estimates": estimates.run,
    "hybrid": hybrid.run,
}
RESULTS = Path(__file__).with_name("results.md")
HEAD = (
    "# Benchmarks\n\nWritten by `make bench`, or section by section by `python -m benchmarks NAME`. Every ratio compares "
    "two ways in one run; absolute times would be noise."
)


def main() -> None:
    """Runs the benchmarks that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}; all by default")
    names = parser.parse_args().names or list(BENCHMARKS)
    if unknown := set(names) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(unknown)}")
    logging.set_verbosity_error()
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    for name in names:
        table = "\n".join(
            ["| | measured |", "|---|---|", *(f"| {what} | {value} |" for what, value in BENCHMARKS[name]())]
        )
        section = f"Here: {where}, torch {torch.__version__}, Python {platform.python_version()}.\n\n{table}"
        print(f"## {name}\n\n{section}\n", flush=True)
        _keep(name, section)


def _keep(name: str, section: str) -> None:
    """Puts a section in its place in the results; those of the other benchmarks stay."""
    earlier = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
    kept = dict(re.findall(r"^## (\w+)\n\n(.*?)\s*(?=^## |\Z)", earlier, flags=re.MULTILINE | re.DOTALL))
    sections = {**kept, name: section}
    text = "\n\n".join(f"## {each}\n\n{sections[each]}" for each in BENCHMARKS if each in sections)
    write_atomically(RESULTS, f"{HEAD}\n\n{text}\n".encode())


if __name__ == "__main__":
    main()
