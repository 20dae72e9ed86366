"""`layertracer plan`."""

from __future__ import annotations

import textwrap
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import LayerTracerError, ReportNotFoundError
from ..estimate.config import EstimateConfig
from ..planning.config import PlanConfig
from ..planning.export import EXPORT_FORMATS
from ..planning.fitting import LIMIT
from ..planning.strategies import STRATEGIES, strategy_named
from .options import AllowPickle, Revision, TrustRemoteCode, one_of, with_options
from .printing import print_estimate, print_plan


if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..estimate import TrainingEstimate
    from ..planning.fitting import MemoryOfPlans
    from ..records import LayerPlan
    from ..report import LayerTracerReport


@with_options(PlanConfig, panel="What trains")
@with_options(EstimateConfig, argument="run", panel="The training run (with --estimate or --max-memory)")
def command(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|REPORT", help="A report (file, folder or Hub id), or a model or its config.json."
        ),
    ],
    config: PlanConfig,
    run: EstimateConfig,
    export: Annotated[
        str | None, typer.Option(metavar=one_of(EXPORT_FORMATS), help="Print it in the form of another trainer.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write to this file: the export, or the plan as JSON.")] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Say what memory and time training takes, before it starts.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --estimate: print JSON.")] = False,
    layers_path: Annotated[str | None, typer.Option(help="Dotted path of the list of decoder layers.")] = None,
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    allow_pickle: AllowPickle = False,
) -> None:
    from ..files import write_atomically
    from ..modeling import find_parts
    from ..modeling.facts import model_facts
    from ..planning import configured_plan, export_plan
    from ..report import LayerTracerReport

    _refuse_idle_strategy(context, config)
    _refuse_idle_output(estimate, as_json, export, out)
    _refuse_idle_run(context, config, estimate)
    limit = config.max_memory
    if estimate and config.strategy != "budget":
        config = replace(config, **{LIMIT: None})  # the estimate says whether it fits, and what would
    measured = None
    if Path(source).name != "config.json":
        with suppress(ReportNotFoundError):
            measured = LayerTracerReport.load(source, revision=revision)
    if measured is not None:
        if config.plan is None and "weights" in strategy_named(config.strategy).needs:
            raise LayerTracerError(
                f"The strategy {config.strategy!r} reads the weights: name the model instead of its report."
            )
        memory = _memory(measured, run, config, revision, trust_remote_code)
        made, facts = configured_plan(measured, config, layers_path=layers_path, memory=memory), measured.model
    else:
        if config.plan is None and "measurements" in strategy_named(config.strategy).needs:
            raise LayerTracerError(
                f"The strategy {config.strategy!r} needs measurements: run layertracer diagnose {source} --out my-report "
                "first, then layertracer plan my-report."
            )
        subject = _load(source, config.strategy, revision, trust_remote_code, allow_pickle)
        memory = _memory(source, run, config, revision, trust_remote_code)
        made = configured_plan(subject, config, layers_path=layers_path, memory=memory)
        facts = model_facts(find_parts(subject, layers_path))
    text = export_plan(made, facts, export) if export else None
    found = None
    if estimate:
        run = replace(run, device=run.device or (limit and str(limit)))
        found = _estimate(source if measured is None else measured, made, run, revision, trust_remote_code)
    if out is not None:
        write_atomically(out, (text or made.model_dump_json(indent=1) + "\n").encode())
        typer.echo(f"Plan: {out}", err=as_json)  # what is printed as JSON is nothing else
    if found is not None:
        print_estimate(found, as_json)
    elif out is not None:
        return
    elif text is not None:
        typer.echo(text, nl=False)
    else:
        print_plan(made, facts)


def _refuse_idle_strategy(context: typer.Context, config: PlanConfig) -> None:
    """Refuses a strategy that a plan file overrules: the settings cannot tell the default from one that was named."""
    source = context.get_parameter_source("strategy")
    if config.plan is not None and source is not None and source.name == "COMMANDLINE":
        raise LayerTracerError(f"The plan file {config.plan} says what trains: leave --strategy and its options out.")


def _refuse_idle_output(estimate: bool, as_json: bool, export: str | None, out: Path | None) -> None:
    """Refuses what would print nothing, or two things at once."""
    if as_json and not estimate:
        raise LayerTracerError("--json prints an estimate: add --estimate, or write the plan as JSON with --out.")
    if estimate and export is not None and out is None:
        raise LayerTracerError("--estimate and --export would both print: name a file for the export with --out.")


def _refuse_idle_run(context: typer.Context, config: PlanConfig, estimate: bool) -> None:
    """Refuses what describes a run where no run is asked about."""
    if estimate:
        return
    # A limit on memory is compared with the run; whether that fits a device, an estimate alone says.
    idle = ["device"] if config.max_memory is not None else [own.name for own in fields(EstimateConfig)]
    for name in idle:
        given = context.get_parameter_source(name)
        if given is not None and given.name == "COMMANDLINE":
            also = "" if config.max_memory is not None else " or --max-memory"
            raise LayerTracerError(f"--{name.replace('_', '-')} describes a training run: add --estimate{also}.")


def _load(
    source: str, strategy: str, revision: str | None, trust_remote_code: bool, allow_pickle: bool
) -> PreTrainedModel:
    from ..modeling.loading import load_model, load_skeleton

    if "weights" in strategy_named(strategy).needs:
        return load_model(source, revision=revision, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle)[0]
    return load_skeleton(source, revision=revision, trust_remote_code=trust_remote_code)


def _memory(
    source: str | LayerTracerReport,
    run: EstimateConfig,
    config: PlanConfig,
    revision: str | None,
    trust_remote_code: bool,
) -> MemoryOfPlans | None:
    """What a limit is compared with: a traced step, or what can be counted where the report's model is not at hand."""
    from ..estimate import traced_memory

    if config.max_memory is None:
        return None
    try:
        model, revision = _model_of(source, revision)
        options: dict[str, Any] = {**run.options(), "revision": revision, "trust_remote_code": trust_remote_code}
        return traced_memory(model, run.training_arguments(), **options)
    except LayerTracerError as error:
        if isinstance(source, str):
            raise
        typer.echo(f"Without activations, which cannot be traced: {error}", err=True)
        return None


def _model_of(source: str | LayerTracerReport, revision: str | None) -> tuple[str, str | None]:
    if isinstance(source, str):
        return source, revision
    if source.model.id is None:
        raise LayerTracerError(
            "The report does not say where its model is: name the model instead, with the strategy to estimate."
        )
    return source.model.id, source.model.revision


def _estimate(
    source: str | LayerTracerReport,
    plan: LayerPlan,
    run: EstimateConfig,
    revision: str | None,
    trust_remote_code: bool,
) -> TrainingEstimate:
    from ..estimate import estimate_training

    model, revision = _model_of(source, revision)
    settings: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code, **run.options()}
    return estimate_training(model, plan, run.training_arguments(), **settings)


_NEEDS = {"measurements": "a report", "weights": "the weights", "budget": "a limit"}


def _described() -> str:
    """Every strategy with what it does, what it takes and what it needs, in lines that fit a terminal."""
    width = max(map(len, STRATEGIES))
    lines = []
    for strategy in STRATEGIES.values():
        options = ", ".join(f"--{name.replace('_', '-')}" for name in strategy.option_names)
        needs = " and ".join(what for need, what in _NEEDS.items() if need in strategy.needs)
        text = " ".join(
            [strategy.summary, *([f"Takes {options}."] if options else []), *([f"Needs {needs}."] if needs else [])]
        )
        lines.append(
            textwrap.fill(
                text,
                width=76,
                initial_indent=f"{strategy.name:{width}}  ",
                subsequent_indent=" " * (width + 2),
                break_on_hyphens=False,
            )
        )
    return "\n".join(lines)


command.__doc__ = f"""Decide which layers to train: from a report, or from a model's structure alone (no weights are loaded).

What --strategy can be:

{_described()}
"""
