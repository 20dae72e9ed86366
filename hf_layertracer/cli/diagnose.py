"""`layertracer diagnose`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..config import DiagnosisConfig
from ..errors import LayerTracerError
from .options import AllowPickle, Model, Revision, TrustRemoteCode, with_options
from .printing import print_report


@with_options(DiagnosisConfig, panel="What is measured")
def command(
    model: Model,
    config: DiagnosisConfig,
    probes: Annotated[
        Path | None,
        typer.Option(help="File or folder of probes: JSONL with prompt and target, or C-Eval, CMMLU, ARC layouts."),
    ] = None,
    max_probes: Annotated[int | None, typer.Option(help="Take a seeded sample of this many probes.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the report, its picture and README.md.")] = Path(
        "layertracer-report"
    ),
    dtype: Annotated[str, typer.Option(help="Data type of the weights: auto, float32, bfloat16, float16.")] = "auto",
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    allow_pickle: AllowPickle = False,
) -> None:
    """Measure Task Particle and Layer Sensitivity, and write a report with a picture.

    Without --probes, the probes that ship with the package are used: facts, grammar, everyday knowledge and code, in
    English and Chinese. The report also holds the default plan (freeze the deep half); layertracer plan makes others.
    """
    from ..diagnosis.diagnose import diagnose
    from ..modeling.loading import load_model
    from ..probes import load_probes

    if probes is not None and not probes.exists():
        raise LayerTracerError(f"No such probe file: {probes}.")
    loaded, tokenizer = load_model(
        model, revision=revision, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle, dtype=dtype
    )
    chosen = load_probes(probes, tokenizer=tokenizer, max_probes=max_probes, seed=config.diagnosis_seed)
    report = diagnose(loaded, chosen, tokenizer=tokenizer, config=config)
    report.save(out)
    print_report(report)
    typer.echo(f"Report: {out}")
