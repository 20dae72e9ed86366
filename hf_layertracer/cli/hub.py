"""The commands that speak to the Hub: `layertracer push` and `layertracer list`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..errors import LayerTracerError


RepoType = Annotated[str, typer.Option(help="model, or dataset: one that collects reports.")]
Token = Annotated[str | None, typer.Option(help="By default HF_TOKEN, or the one that `hf auth login` stored.")]


def push(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with a report, or the report itself.")],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="Repository on the Hub; made where it does not exist.")],
    repo_type: RepoType = "model",
    model: Annotated[
        bool, typer.Option("--model", help="Also push the model that lies in DIR, in the same commit.")
    ] = False,
    commit_message: Annotated[str | None, typer.Option(help="First line of the commit.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch to push to; made where it does not exist.")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead.")] = False,
    private: Annotated[
        bool | None, typer.Option("--private/--public", help="Of a new repository; your account's default.")
    ] = None,
    token: Token = None,
) -> None:
    """Push a report with its picture and a card to the Hub, in one commit.

    Into a model repository it goes beside the weights, and the rest of an existing card stays as it is. A dataset
    repository collects reports, one row per layer. If a push breaks, the same command again finishes it.
    """
    from ..hub import push_report
    from ..report import LayerTracerReport

    if not os.path.exists(directory):
        raise LayerTracerError(f"No such folder: {directory}.")
    report = LayerTracerReport.load(directory)
    commit = push_report(
        report,
        repo,
        repo_type=repo_type,
        model_dir=(directory if directory.is_dir() else directory.parent) if model else None,
        commit_message=commit_message,
        revision=revision,
        create_pr=create_pr,
        private=private,
        token=token,
    )
    typer.echo(f"Pull request: {commit.pr_url}" if commit.pr_url else f"Pushed: {commit.commit_url}")


def list_reports(
    repo: Annotated[
        str | None, typer.Argument(metavar="REPO", help="One repository; all models with a report by default.")
    ] = None,
    repo_type: RepoType = "model",
    revision: Annotated[str | None, typer.Option(help="Of REPO: branch, tag or commit.")] = None,
    author: Annotated[str | None, typer.Option(help="Only models of this user or organization.")] = None,
    search: Annotated[str | None, typer.Option(help="Only models with this in their name.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many, the newest.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    token: Token = None,
) -> None:
    """List reports on the Hub side by side: of a model over time, of a dataset of reports, or of all models."""
    from ..hub import compare_reports
    from ..hub import list_reports as find

    found = find(repo, repo_type=repo_type, revision=revision, author=author, search=search, limit=limit, token=token)
    rows = compare_reports(found)
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    elif not rows:
        typer.echo("No reports.")
    else:
        Console().print(_table(rows))


def _table(rows: list[dict[str, Any]]) -> Table:
    from ..text import compact_ranges, one_line

    places = {row["repo_id"] for row in rows}
    same_place = places.pop() if len(places) == 1 else None
    title = f"{len(rows)} report{'s' if len(rows) > 1 else ''}" + (f" in {same_place}" if same_place else "")
    table = Table(title=escape(title))
    table.add_column("report", overflow="fold", min_width=16)
    for column in ("date", "Task Particle", "vulnerable layer", "accuracy", "trains", "eval loss"):
        table.add_column(column, justify="right")
    for row in rows:
        particle, losses = row["task_particle"], [row["eval_loss_before"], row["eval_loss_after"]]
        folder = (row["subfolder"] or "").rsplit("/", 1)[-1]
        cells = [
            folder or (row["revision"][:12] if same_place else row["repo_id"]),
            row["date"][:10],
            "-" if particle is None else f"{particle:g} of {row['layers']}",
            f"{row['vulnerable_layer']}: {row['highest_sensitivity']:.3f}",
            f"{row['accuracy']:.1%}",
            "-" if row["trained_layers"] is None else compact_ranges(row["trained_layers"]),
            " → ".join("?" if loss is None else f"{loss:.3f}" for loss in losses) if any(losses) else "-",
        ]
        # Names come from other people's files: they are text, not markup.
        table.add_row(*(escape(one_line(cell, 100)) for cell in cells))
    return table
