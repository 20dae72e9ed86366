"""`layertracer trials`: which allocation pays, by controlled experiment."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table


if TYPE_CHECKING:
    from ..trials import TrialsResult


command = typer.Typer(help="Find out by experiment which layers to train.", no_args_is_help=True)

Out = Annotated[Path, typer.Option(help="Folder for everything; run it again after an interruption.")]
Directory = Annotated[Path, typer.Argument(metavar="DIR", help="Folder that `trials run` writes to.")]


@command.command()
def init(
    path: Annotated[Path, typer.Argument(metavar="[CONFIG]", help="File to write.")] = Path("trials.yaml"),
    model: Annotated[str, typer.Option(help="Hub id or local folder of the model.")] = "HuggingFaceTB/SmolLM2-135M",
) -> None:
    """Write a config with comments, to fill in."""
    from ..errors import LayerTracerError
    from ..files import write_atomically
    from ..trials.template import config_template

    if path.exists():
        raise LayerTracerError(f"{path} exists already: name another file.")
    write_atomically(path, config_template(model).encode())
    typer.echo(f"Config: {path}. Name your texts in it, then: layertracer trials run {path} --out trials-out")


@command.command()
def run(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file; `trials init` writes one.")],
    out: Out = Path("layertracer-trials"),
    halving: Annotated[
        bool, typer.Option("--halving", help="Run all arms briefly, then the better half longer, until one is left.")
    ] = False,
    total_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="With --halving: tokens of all runs together; by default as many as without it."),
    ] = None,
    push: Annotated[str | None, typer.Option(metavar="REPO", help="Push the results to this dataset.")] = None,
    private: Annotated[bool | None, typer.Option(help="With --push: who sees a new dataset.")] = None,
) -> None:
    """Train and evaluate every arm with every seed, and the untouched model.

    After an interruption, the same command goes on where it was. With --halving, it ends with plan.json, a plan file for
    LayerTracerConfig(plan=...) and layertracer plan.
    """
    from ..errors import LayerTracerError
    from ..trials import TrialsConfig, run_halving, run_trials

    if halving:
        if push is not None:
            raise LayerTracerError("--push takes one trial: push the last round with layertracer trials push.")
        _print_halving(run_halving(TrialsConfig.from_file(config), out, total_tokens), out)
        return
    if total_tokens is not None:
        raise LayerTracerError("--total-tokens goes with --halving; without it, train.tokens counts.")
    result = run_trials(TrialsConfig.from_file(config), out)
    print_trial(result)
    typer.echo(f"Results: {out}")
    if push is not None:
        typer.echo(f"Dataset: {_pushed(result, push, private)}")
    if result.failures:
        name, cause = next(iter(result.failures.items()))
        raise LayerTracerError(
            f"{len(result.failures)} of the runs failed; the others are finished. {name}: {cause} (log: "
            f"{out / 'units' / name / 'log.txt'})"
        )


@command.command()
def push(
    directory: Directory,
    repo: Annotated[str, typer.Argument(metavar="REPO", help="Dataset on the Hub, made where it does not exist.")],
    private: Annotated[bool | None, typer.Option(help="Who sees a new dataset.")] = None,
) -> None:
    """Push the results of a trial to a dataset: a row for each run and metric."""
    from ..trials import TrialsResult

    typer.echo(f"Dataset: {_pushed(TrialsResult.load(directory), repo, private)}")


@command.command()
def status(directory: Directory) -> None:
    """Show how far a trial is, also while it runs."""
    from ..trials.status import seconds_left, trial_status

    rounds = sorted(directory.glob("round-*"))
    places = [(f"{folder.name}/", folder) for folder in rounds] or [("", directory)]
    found = [(place, status) for place, folder in places for status in trial_status(folder)]
    statuses = [status for _, status in found]
    table = Table(title=escape(str(directory)))
    for column in ("run", "state", "steps", ""):
        table.add_column(column, justify="right" if column == "steps" else "left", overflow="fold")
    for place, unit in found:
        steps = f"{unit.step} of {unit.steps}" if unit.steps else ""
        table.add_row(escape(place + unit.name), unit.state, steps, escape(unit.note))
    Console().print(table)
    finished = sum(unit.state == "finished" for unit in statuses)
    left = seconds_left(statuses)
    about = "" if not left else f" About {timedelta(seconds=round(left))} left at the pace so far."
    typer.echo(f"{finished} of {len(statuses)} runs are finished.{about}")


@command.command()
def show(
    directory: Directory,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, as results.md has it.")] = False,
) -> None:
    """Show the results of a trial, finished or not."""
    from ..trials import HalvingResult, TrialsResult

    rounds = sorted(directory.glob("round-*"))
    result = TrialsResult.load(rounds[-1] if rounds else directory)
    if markdown:
        typer.echo(result.to_markdown())
        return
    print_trial(result)
    if (halving := HalvingResult.load(directory)) is not None:
        _print_halving(halving, directory)


def _pushed(result, repo: str, private: bool | None) -> str:
    from ..trials.publish import push_trials

    return push_trials(result, repo, private=private)


def _print_halving(halving, directory: Path) -> None:
    table = Table(title="Successive halving", caption=escape(halving.verdict))
    for column in ("round", "tokens a run", "arm", "objective", "± error", "stays"):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for number, entry in enumerate(halving.rounds, start=1):
        for place, arm in enumerate(entry["arms"]):
            table.add_row(
                str(number) if place == 0 else "",
                f"{entry['tokens']}" if place == 0 else "",
                escape(arm["name"]),
                f"{arm['score']:+.4f}",
                "" if arm["stderr"] is None else f"{arm['stderr']:.4f}",
                "yes" if arm["kept"] else "",
            )
    console = Console()
    console.print(table)
    for number, entry in enumerate(halving.rounds, start=1):
        for cause in entry.get("failed", {}).values():
            console.print(f"Failed in round {number}: {cause}", markup=False)
    if halving.plan is None:
        console.print("No arm that has a plan was left: there is no plan file.")
    else:
        of = "" if halving.planned_by == halving.winner else f" of {halving.planned_by}, as {halving.winner} has none"
        console.print(f"Plan{of}: {directory / 'plan.json'}", markup=False)


def print_trial(result: TrialsResult) -> None:
    """Prints the tables of a trial, what failed and what is missing."""
    from ..trials.tables import result_tables
    from .printing import print_result_table

    console = Console()
    for table in result_tables(result):
        print_result_table(console, table)
    for note in result.all_notes:
        console.print(f"Note: {note}", markup=False)
    for name, cause in result.failures.items():
        console.print(f"Failed: {name}: {cause}", markup=False)
    if result.missing:
        console.print(f"Not finished: {', '.join(result.missing)}", markup=False)
