"""`layertracer diagnose`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from ..config import DiagnosisConfig
from .options import AllowPickle, Model, Revision, TrustRemoteCode, with_options
from .printing import print_report


@with_options(DiagnosisConfig, panel="What is measured")
def command(
    model: Model,
    config: DiagnosisConfig,
    probes: Annotated[
        Path | None,
        typer.Option(
            help="File or folder of probes: JSONL with prompt and target, or C-Eval, CMMLU, ARC, lm-eval layouts; or "
            "builtin:structured, 500 of the package that ask for antonyms and synonyms."
        ),
    ] = None,
    text_column: Annotated[str | None, typer.Option(help="Column to cut probes out of; found by its name.")] = None,
    max_prompt_tokens: Annotated[int, typer.Option(help="Longest prompt cut out of a text.")] = 64,
    shots: Annotated[int, typer.Option(help="Put this many probes of each task before the others, as examples.")] = 0,
    max_probes: Annotated[int | None, typer.Option(help="Take a seeded sample of this many probes.")] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="A first look on 24 probes: the context masked once, each layer skipped for a few of them.",
        ),
    ] = False,
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
    from ..checks import one_of
    from ..diagnosis.diagnose import diagnose
    from ..diagnosis.quick import QUICK_PROBES, quick_look
    from ..files import check_writable
    from ..modeling import find_parts
    from ..modeling.loading import DTYPES, load_model
    from ..modeling.names import check_name
    from ..probes import load_probes
    from ..probes.layouts import NoTokenizerError

    # What is wrong with anything but the model is said before the model is loaded.
    if quick:
        max_probes = max_probes or QUICK_PROBES
    one_of("dtype", dtype, DTYPES)
    check_name(model)
    check_writable(out)
    reading: dict[str, Any] = {
        "text_column": text_column,
        "max_probes": max_probes,
        "max_prompt_tokens": max_prompt_tokens,
        "shots": shots,
        "seed": config.diagnosis_seed,
    }
    with suppress(NoTokenizerError):
        load_probes(probes, **reading)
    loaded, tokenizer = load_model(
        model, revision=revision, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle, dtype=dtype
    )
    if quick:
        config = quick_look(config, find_parts(loaded, config.layers_path).num_layers)
    report = diagnose(loaded, load_probes(probes, tokenizer=tokenizer, **reading), tokenizer=tokenizer, config=config)
    report.save_or_keep(out)
    print_report(report)
    typer.echo(f"Report: {out}")
