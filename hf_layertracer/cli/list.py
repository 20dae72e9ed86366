"""`layertracer list`."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from .options import Token, one_of
from .printing import reports_table


def command(
    repo: Annotated[
        str | None, typer.Argument(metavar="REPO", help="One repository; all models with a report by default.")
    ] = None,
    repo_type: Annotated[
        str | None,
        typer.Option(
            metavar=one_of(("model", "dataset")),
            help="Type of REPO; by default the model of this name, else the dataset.",
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of REPO.")] = None,
    author: Annotated[str | None, typer.Option(help="Only models of this user or organization.")] = None,
    search: Annotated[str | None, typer.Option(help="Only models with this in their name.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many, the newest.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    token: Token = None,
) -> None:
    """List reports on the Hub side by side: of a model over time, of a dataset of reports, or of all models."""
    from ..hub import compare_reports, list_reports

    found = list_reports(
        repo, repo_type=repo_type, revision=revision, author=author, search=search, limit=limit, token=token
    )
    rows = compare_reports(found)
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    elif not rows:
        typer.echo("No reports.")
    else:
        Console().print(reports_table(rows))
