"""The `layertracer` command: finds the commands and turns errors into one line."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import sys
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.main import get_command

from .. import __version__, cli
from ..errors import IncompatibleDonorsError, LayerTracerError


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hf_layertracer {__version__}")
        raise typer.Exit


def _main(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Print the version.")
    ] = False,
) -> None:
    """Measure what each layer of a language model does, and plan which layers to train."""


def build_command() -> Any:
    """Puts all commands together.

    Returns:
        `typer.core.TyperGroup`: The command, ready to be called.
    """
    app = typer.Typer(
        name="layertracer",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_main)
    for found in pkgutil.iter_modules(cli.__path__):
        if found.name in ("__main__", "app"):
            continue
        command = getattr(importlib.import_module(f"{cli.__name__}.{found.name}"), "command", None)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=found.name)
        elif command is not None:
            app.command(found.name)(command)
    whole = get_command(app)
    _clean_help(whole)
    return whole


def _clean_help(command: Any) -> None:
    """Paragraphs as wide as the terminal, but for those with indented lines; brackets are text and not rich's markup."""
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    command.help = escape("\n\n".join(p if "\n " in p else " ".join(p.split("\n")) for p in paragraphs))
    for parameter in command.params:
        parameter.help = escape(parameter.help or "")
    for nested in getattr(command, "commands", {}).values():
        _clean_help(nested)


def main() -> None:
    """Runs a command: an error that the user can mend is one line and exit status 1."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        build_command()()
    except IncompatibleDonorsError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(1)
    except LayerTracerError as error:
        typer.echo(f"Error: {' '.join(str(error).split())}", err=True)
        sys.exit(1)
