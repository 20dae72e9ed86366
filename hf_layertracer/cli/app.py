"""The command line: `layertracer diagnose`, `plan`, `push`, `list`, `view` and `demo`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from transformers.utils import logging

from ..config import DiagnosisConfig
from ..errors import IncompatibleDonorsError, LayerTracerError, ReportNotFoundError
from . import hub as cli_hub
from .hybrid import hybrid
from .trials import trials


app = typer.Typer(
    name="layertracer",
    help="Measure what each layer of a language model does, and plan which layers to train.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_DEFAULTS = DiagnosisConfig()

Model = Annotated[str, typer.Argument(metavar="MODEL", help="Hub id or local folder of a causal language model.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")]
TrustRemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")]
AllowPickle = Annotated[
    bool, typer.Option("--allow-pickle", help="Load weights that are not safetensors; such files can run code.")
]


@app.command()
def diagnose(
    model: Model,
    probes: Annotated[
        Path | None,
        typer.Option(help="File or folder of probes: JSONL with prompt and target, or C-Eval, CMMLU, ARC layouts."),
    ] = None,
    max_probes: Annotated[int | None, typer.Option(help="Take a seeded sample of this many probes.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the report, its picture and README.md.")] = Path(
        "layertracer-report"
    ),
    perturbation: Annotated[str, typer.Option(help="mask, skip or noise.")] = _DEFAULTS.perturbation,
    mask_ratio: Annotated[
        float, typer.Option(help="Fraction of the hidden dimensions that a mask zeroes.")
    ] = _DEFAULTS.mask_ratio,
    noise_scale: Annotated[
        float, typer.Option(help="Noise, in units of the hidden state's own standard deviation.")
    ] = _DEFAULTS.noise_scale,
    repeats: Annotated[
        int | None, typer.Option(help="Random masks per probe; by default 256 over all probes.")
    ] = None,
    estimator: Annotated[
        str, typer.Option(help="exact, or gradient: a faster estimate, labelled as one.")
    ] = _DEFAULTS.estimator,
    diagnosis_seed: Annotated[int, typer.Option(help="Seed of all random draws.")] = _DEFAULTS.diagnosis_seed,
    diagnosis_batch_size: Annotated[
        int | None, typer.Option(help="Probes per forward pass; from the memory budget by default.")
    ] = None,
    memory_budget: Annotated[int | None, typer.Option(help="Bytes to use beyond the model.")] = None,
    layers_path: Annotated[
        str | None, typer.Option(help="Dotted path of the list of decoder layers, if it is not found.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="Data type of the weights: auto, float32, bfloat16, float16.")] = "auto",
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    allow_pickle: AllowPickle = False,
) -> None:
    """Measure Task Particle and Layer Sensitivity, and write a report with a picture.

    Without --probes, the probes that ship with the package are used: facts, grammar, everyday knowledge and code, in
    English and Chinese. The report also holds the default plan (freeze the deep half); layertracer plan makes others.
    """
    from ..diagnosis.diagnose import diagnose as run
    from ..modeling.loading import load_model
    from ..probes import load_probes

    config = DiagnosisConfig(
        perturbation=perturbation,
        mask_ratio=mask_ratio,
        noise_scale=noise_scale,
        repeats=repeats,
        diagnosis_seed=diagnosis_seed,
        estimator=estimator,
        diagnosis_batch_size=diagnosis_batch_size,
        memory_budget=memory_budget,
        layers_path=layers_path,
    )
    if probes is not None and not probes.exists():
        raise LayerTracerError(f"No such probe file: {probes}.")
    loaded, tokenizer = load_model(
        model, revision=revision, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle, dtype=dtype
    )
    chosen = load_probes(probes, tokenizer=tokenizer, max_probes=max_probes, seed=diagnosis_seed)
    report = run(loaded, chosen, tokenizer=tokenizer, config=config)
    report.save(out)
    _print_report(report)
    typer.echo(f"Report: {out}")


@app.command()
def plan(
    source: Annotated[
        str, typer.Argument(metavar="MODEL|REPORT", help="A report (file, folder or Hub id), or a model to count.")
    ],
    strategy: Annotated[
        str,
        typer.Option(
            help="freeze-deep, freeze-shallow, full, task-particle, sensitivity, budget, explicit, random, "
            "block-influence or weight-snr. task-particle, sensitivity, budget and block-influence need a report."
        ),
    ] = "freeze-deep",
    freeze_ratio: Annotated[float | None, typer.Option(help="Fraction of the layers to freeze.")] = None,
    train_layers: Annotated[
        str | None, typer.Option(help="explicit: layers to train: 0,1,2 or 0-7 or ::2 or a regular expression.")
    ] = None,
    max_trainable_parameters: Annotated[int | None, typer.Option(help="budget: this many parameters.")] = None,
    max_memory: Annotated[
        int | None, typer.Option(help="budget: bytes for weights, gradients and Adam's moments.")
    ] = None,
    plan_seed: Annotated[int | None, typer.Option(help="random: the seed.")] = None,
    train_embeddings: Annotated[bool | None, typer.Option(help="Overrule the strategy.")] = None,
    train_norm: Annotated[bool | None, typer.Option(help="Overrule the strategy.")] = None,
    train_head: Annotated[bool | None, typer.Option(help="Overrule the strategy.")] = None,
    export: Annotated[
        str | None, typer.Option(help="Print it for another trainer: axolotl, llama-factory or names.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write to this file: the export, or the plan as JSON.")] = None,
    layers_path: Annotated[str | None, typer.Option(help="Dotted path of the list of decoder layers.")] = None,
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    allow_pickle: AllowPickle = False,
) -> None:
    """Decide which layers to train: from a report, or from a model's structure alone (no weights are loaded)."""
    from ..files import write_atomically
    from ..modeling import find_parts
    from ..modeling.facts import model_facts
    from ..planning import checked_strategy, export_plan, make_plan
    from ..report import LayerTracerReport

    options: dict[str, Any] = {
        "freeze_ratio": freeze_ratio,
        "train_layers": train_layers,
        "max_trainable_parameters": max_trainable_parameters,
        "max_memory": max_memory,
        "plan_seed": plan_seed,
    }
    options = {name: value for name, value in options.items() if value is not None}
    checked_strategy(strategy, options)
    overrule = {"train_embeddings": train_embeddings, "train_norm": train_norm, "train_head": train_head}
    try:
        measured = LayerTracerReport.load(source, revision=revision)
    except ReportNotFoundError:
        measured = None
    if measured is not None:
        made, facts = make_plan(measured, strategy, **overrule, **options), measured.model
    else:
        subject = _model_to_plan(source, strategy, revision, trust_remote_code, allow_pickle)
        made = make_plan(subject, strategy, layers_path=layers_path, **overrule, **options)
        facts = model_facts(find_parts(subject, layers_path))
    text = export_plan(made, facts, export) if export else None
    if out is not None:
        write_atomically(out, (text or made.model_dump_json(indent=1) + "\n").encode())
        typer.echo(f"Plan: {out}")
    elif text is not None:
        typer.echo(text, nl=False)
    else:
        _print_plan(made)


app.add_typer(hybrid)
app.add_typer(trials)
app.command("push")(cli_hub.push)
app.command("list")(cli_hub.list_reports)


@app.command()
def view(
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="[REPORT|DIR|REPO]...", help="Report files, folders with some, or Hub ids."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 lets others look.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Port; a free one from 7860 on by default.")] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    push: Annotated[str | None, typer.Option(metavar="REPO", help="Create this Space on the Hub instead.")] = None,
    private: Annotated[bool | None, typer.Option(help="With --push, of a new Space: who sees it.")] = None,
) -> None:
    """Look at reports in a browser: see one, compare several, try allocations.

    Without a name, the examples that ship with the viewer are shown. Needs: pip install "hf_layertracer[viewer]".
    """
    try:
        from ..viewer.app import build_app, serve
        from ..viewer.reading import find_reports
        from ..viewer.space import example_reports, push_space
    except ModuleNotFoundError as error:
        raise LayerTracerError(
            f'The viewer needs {error.name}, which is not installed: pip install "hf_layertracer[viewer]"'
        ) from error

    if push is not None:
        chosen = find_reports(sources or [])
        remote = [source for source in chosen.values() if isinstance(source, str)]
        if remote:
            raise LayerTracerError(
                f"A Space starts with files: {remote[0]} is none. Leave it out; the Space can open it."
            )
        typer.echo(f"Space: {push_space(push, reports=chosen, private=private)}")
        return
    page = build_app(sources or [example_reports()])
    serve(page, server_name=host, server_port=port, inbrowser=browser)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report, its picture and the results.")] = Path(
        "layertracer-demo"
    ),
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps of each run.")] = 40,
    estimator: Annotated[str, typer.Option(help="exact, or gradient.")] = "exact",
    repeats: Annotated[int | None, typer.Option(help="Random masks per probe.")] = None,
    diagnose_steps: Annotated[int | None, typer.Option(min=1, help="Diagnose again every so many steps.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
) -> None:
    """Run the main job on a real model: diagnose SmolLM2-135M, train it with deep layers frozen and in full, compare.

    The corpus is the documentation strings of Python's standard library; every eighth module is held out.
    """
    from ..demo.run import run_demo
    from ..report import LayerTracerReport

    results = run_demo(
        out, steps=steps, estimator=estimator, repeats=repeats, diagnose_steps=diagnose_steps, seed=seed
    )
    _print_report(LayerTracerReport.load(out))
    _print_results(results)
    typer.echo(f"Report, picture and numbers: {out}")


def main() -> None:
    """Entry point: an error that the user can mend is one line and exit status 1."""
    logging.set_verbosity_error()
    try:
        app()
    except IncompatibleDonorsError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(1)
    except LayerTracerError as error:
        typer.echo(f"Error: {' '.join(str(error).split())}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        typer.echo("Interrupted.", err=True)
        sys.exit(130)


def _model_to_plan(source: str, strategy: str, revision: str | None, trust_remote_code: bool, allow_pickle: bool):
    from ..modeling.loading import load_model, load_skeleton

    if strategy == "weight-snr":  # the one that reads weights
        hub = {"revision": revision, "trust_remote_code": trust_remote_code}
        return load_model(source, allow_pickle=allow_pickle, **hub)[0]
    return load_skeleton(source, revision=revision, trust_remote_code=trust_remote_code)


def _print_report(report) -> None:
    from ..text import compact_ranges

    particle, scores = report.first.task_particle, report.first.sensitivity
    table = Table(title=f"{report.model.name}: {report.num_layers} layers")
    table.add_column("Measured")
    table.add_column("Result")
    resolved = f"{report.probes.count - particle.unresolved} of {report.probes.count} probes"
    if particle.layer is None:
        table.add_row(
            "Task Particle", "unresolved" if report.first.lens.valid else "the lens is not valid for this model"
        )
    else:
        low, high = particle.interval
        table.add_row("Task Particle", f"layer {particle.layer:g} (95 % interval {low:g} to {high:g}; {resolved})")
    worst = scores.vulnerable_layer
    label = "Layer Sensitivity (estimate)" if scores.estimate else "Layer Sensitivity"
    table.add_row(label, f"highest at layer {worst}: {scores.mean[worst]:.3f} ± {scores.stderr[worst]:.3f} bits")
    table.add_row(
        "Shallow minus deep half", f"{scores.shallow_minus_deep:+.3f} ± {scores.shallow_minus_deep_stderr:.3f} bits"
    )
    table.add_row("Computed by", scores.path)
    if report.plan is not None:
        table.add_row(f"Plan ({report.plan.strategy}), trains", compact_ranges(report.plan.trained_layers))
        table.add_row(f"Plan ({report.plan.strategy}), freezes", compact_ranges(report.plan.frozen_layers))
    console = Console()
    console.print(table)
    for note in report.notes:
        console.print(f"Note: {note}", markup=False)


def _print_plan(made) -> None:
    from ..text import compact_ranges

    savings = made.savings
    table = Table(title=f"Plan: {made.strategy}", caption=made.reason)
    for column in ("", "this plan", "full training"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row("trained layers", compact_ranges(made.trained_layers), f"0-{made.num_layers - 1}")
    table.add_row("frozen layers", compact_ranges(made.frozen_layers), "none")
    for label, ours, theirs, unit, scale in (
        ("trainable parameters", savings.trainable_parameters, savings.trainable_parameters_full, "M", 1e6),
        ("gradients", savings.gradient_bytes, savings.gradient_bytes_full, "MiB", 2**20),
        ("Adam's moments", savings.optimizer_bytes, savings.optimizer_bytes_full, "MiB", 2**20),
        ("FLOPs per token", savings.flops_per_token, savings.flops_per_token_full, "G", 1e9),
    ):
        table.add_row(label, f"{ours / scale:.2f} {unit}", f"{theirs / scale:.2f} {unit}")
    Console().print(table)


def _print_results(results: dict[str, Any]) -> None:
    settings = results["settings"]
    table = Table(
        title=f"{settings['steps']} steps on the {results['corpus']}",
        caption="Held-out loss in nats per token, on modules that were not trained on. Same data, order and seed.",
    )
    runs = results["runs"]
    table.add_column("")
    for run in runs:
        table.add_column(run["strategy"], justify="right")
    rows = {
        "held-out loss, before → after": lambda run: _change(run["training"], "eval_loss_{}", ".3f"),
        "probes answered, before → after": lambda run: _change(run, "probes_{}", ".1%", "accuracy"),
        "probes' mean log-probability": lambda run: _change(run, "probes_{}", ".2f", "mean_log_probability"),
        "tokens per second": lambda run: f"{run['training']['tokens_per_second']:.0f}",
        "peak memory of the process": lambda run: f"{run['training']['peak_memory_bytes'] / 2**20:.0f} MiB",
        "parameters that train": lambda run: f"{run['training']['trainable_parameters'] / 1e6:.1f} M",
    }
    for label, value in rows.items():
        table.add_row(label, *(value(run) for run in runs))
    Console().print(table)


def _change(values: dict[str, Any], name: str, form: str, field: str | None = None) -> str:
    before, after = (values[name.format(when)] for when in ("before", "after"))
    if field is not None:
        before, after = before[field], after[field]
    return f"{before:{form}} → {after:{form}}"


if __name__ == "__main__":
    main()
