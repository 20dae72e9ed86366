"""`layertracer push`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ..errors import LayerTracerError
from .options import RepoType, Token


def command(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with a report, or the report itself.")],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="Repository on the Hub; made where it does not exist.")],
    repo_type: RepoType = "model",
    model: Annotated[
        bool, typer.Option("--model", help="Also push the model that lies in DIR, in the same commit.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the files that would go, and push nothing.")
    ] = False,
    commit_message: Annotated[str | None, typer.Option(help="First line of the commit.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch to push to; made where it does not exist.")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead.")] = False,
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Who sees a new repository; by default as your account has it."),
    ] = None,
    token: Token = None,
) -> None:
    """Push a report with its picture and a card to the Hub, in one commit.

    Into a model repository it goes beside the weights, and the rest of an existing card stays as it is. A dataset
    repository collects reports, one row per layer. If a push breaks, the same command again finishes it.
    """
    from ..hub import push_report
    from ..hub.model_files import model_files
    from ..hub.push import report_files
    from ..report import LayerTracerReport

    if not os.path.exists(directory):
        raise LayerTracerError(f"No such folder: {directory}.")
    report = LayerTracerReport.load(directory)
    folder = directory if directory.is_dir() else directory.parent
    if model or dry_run:
        sizes = {name: path.stat().st_size for name, path in model_files(folder).items()} if model else {}
        sizes |= {name: len(content) for name, content in report_files(report, repo_type).items()}
        for name, size in sizes.items():
            typer.echo(f"{name} ({size:,} bytes)")
        typer.echo("README.md (the card)")
    if dry_run:
        return
    commit = push_report(
        report,
        repo,
        repo_type=repo_type,
        model_dir=folder if model else None,
        commit_message=commit_message,
        revision=revision,
        create_pr=create_pr,
        private=private,
        token=token,
    )
    typer.echo(f"Pull request: {commit.pr_url}" if commit.pr_url else f"Pushed: {commit.commit_url}")
