"""`layertracer trials`: which allocation pays, by controlled experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table


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
) -> None:
    """Train and evaluate every arm with every seed, and the untouched model.

    After an interruption, the same command goes on where it was.
    """
    from ..errors import LayerTracerError
    from ..trials import TrialsConfig, run_trials

    result = run_trials(TrialsConfig.from_file(config), out)
    _print(result)
    typer.echo(f"Results: {out}")
    if result.failures:
        name, cause = next(iter(result.failures.items()))
        raise LayerTracerError(
            f"{len(result.failures)} of the runs failed; the others are finished. {name}: {cause} (log: "
            f"{out / 'units' / name / 'log.txt'})"
        )


@command.command()
def status(directory: Directory) -> None:
    """Show how far a trial is, also while it runs."""
    from ..trials.status import trial_status

    statuses = trial_status(directory)
    table = Table(title=escape(str(directory)))
    for column in ("run", "state", "steps", ""):
        table.add_column(column, justify="right" if column == "steps" else "left", overflow="fold")
    for unit in statuses:
        steps = f"{unit.step} of {unit.steps}" if unit.steps else ""
        table.add_row(escape(unit.name), unit.state, steps, escape(unit.note))
    Console().print(table)
    finished = sum(unit.state == "finished" for unit in statuses)
    typer.echo(f"{finished} of {len(statuses)} runs are finished.")


@command.command()
def show(directory: Directory) -> None:
    """Show the results of a trial, finished or not."""
    from ..trials import TrialsResult

    _print(TrialsResult.load(directory))


def _print(result) -> None:
    from ..trials.tables import result_tables

    console = Console()
    for table in result_tables(result):
        shown = Table(title=escape(table.title), caption=escape(table.caption), caption_justify="left")
        for index, column in enumerate(table.columns):
            style = "bright_black" if index in table.grey else None
            shown.add_column(escape(column), overflow="fold", style=style, justify="left" if index == 0 else "right")
        for row in table.rows:
            shown.add_row(*map(escape, row))
        console.print(shown)
    for note in result.notes:
        console.print(f"Note: {note}", markup=False)
    for name, cause in result.failures.items():
        console.print(f"Failed: {name}: {cause}", markup=False)
    if result.missing:
        console.print(f"Not finished: {', '.join(result.missing)}", markup=False)
