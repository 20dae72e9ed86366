"""Runs all benchmarks and writes their ratios to `benchmarks/results.md`: `make bench`, or `python -m benchmarks NAME`."""

from __future__ import annotations

import argparse
import platform
from pathlib import Path

import torch
from transformers.utils import logging

from . import allocation, coverage, hybrid, import_time, scaling, sensitivity, training


BENCHMARKS = {
    "import": import_time.run,
    "sensitivity": sensitivity.run,
    "coverage": coverage.run,
    "scaling": scaling.run,
    "training": training.run,
    "allocation": allocation.run,
    "hybrid": hybrid.run,
}


def main() -> None:
    """Runs the benchmarks that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}; all by default")
    names = parser.parse_args().names or list(BENCHMARKS)
    if unknown := set(names) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(unknown)}")
    logging.set_verbosity_error()
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    sections = []
    for name in names:
        rows = BENCHMARKS[name]()
        sections.append(
            "\n".join([f"## {name}", "", "| | measured |", "|---|---|", *(f"| {k} | {v} |" for k, v in rows)])
        )
        print(sections[-1], flush=True)
    if set(names) == set(BENCHMARKS):
        head = (
            "# Benchmarks\n\nWritten by `make bench`. Every ratio compares two ways in one run; absolute times would be "
            f"noise.\nHere: {where}, torch {torch.__version__}, Python {platform.python_version()}.\n\n"
        )
        path = Path(__file__).with_name("results.md")
        path.write_text(head + "\n\n".join(sections) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
