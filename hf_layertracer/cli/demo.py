"""`layertracer demo`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from .printing import print_report
from .trials import print_trial


def command(
    out: Annotated[Path, typer.Option(help="Folder for the report, its picture and the comparison.")] = Path(
        "layertracer-demo"
    ),
    minutes: Annotated[float, typer.Option(min=1, help="Time for everything but installing the model.")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
) -> None:
    """Run the main job on a real model: diagnose SmolLM2-135M, train it with deep layers frozen and in full, compare.

    The corpus is the documentation strings of Python's standard library; every eighth module is held out. The first steps
    are timed, and as much is done as fits the minutes.
    """
    # Threads that wait by spinning make each other sixteen times slower where other programs want the cores too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from ..demo.run import TRIAL, run_demo

    result = run_demo(out, minutes=minutes, seed=seed, say=typer.echo)
    print_report(result.report)
    print_trial(result.trial)
    typer.echo(f"Report and picture: {out}. Comparison: {out / TRIAL / 'results.md'}")
