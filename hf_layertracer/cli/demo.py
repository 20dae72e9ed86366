"""`layertracer demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..planning.config import LayerTracerConfig
from .options import with_options
from .printing import print_report, print_results


@with_options(LayerTracerConfig, only=["estimator", "repeats", "diagnose_steps"])
def command(
    config: LayerTracerConfig,
    out: Annotated[Path, typer.Option(help="Folder for the report, its picture and the results.")] = Path(
        "layertracer-demo"
    ),
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps of each run.")] = 40,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
) -> None:
    """Run the main job on a real model: diagnose SmolLM2-135M, train it with deep layers frozen and in full, compare.

    The corpus is the documentation strings of Python's standard library; every eighth module is held out.
    """
    from ..demo.run import run_demo
    from ..report import LayerTracerReport

    results = run_demo(
        out,
        steps=steps,
        estimator=config.estimator,
        repeats=config.repeats,
        diagnose_steps=config.diagnose_steps,
        seed=seed,
    )
    print_report(LayerTracerReport.load(out))
    print_results(results)
    typer.echo(f"Report, picture and numbers: {out}")
