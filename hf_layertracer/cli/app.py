"""The `layertracer` command: finds the commands and turns errors into one line."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import sys
from collections.abc import Callable
from typing import Annotated

import typer
from rich.markup import escape

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


def build_app() -> typer.Typer:
    """Puts all commands together.

    Returns:
        `typer.Typer`: The app.
    """
    app = typer.Typer(
        name="layertracer",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_main)
    for found in pkgutil.iter_modules(cli.__path__):
        if found.name in ("__main__", "app"):
            continue
        command = getattr(importlib.import_module(f"{cli.__name__}.{found.name}"), "command", None)
        if isinstance(command, typer.Typer):
            for sub in command.registered_commands:
                sub.help = _help(sub.callback)
            app.add_typer(command, name=found.name)
        elif command is not None:
            app.command(found.name, help=_help(command))(command)
    return app


def _help(command: Callable) -> str:
    """The docstring, with paragraphs as wide as the terminal; indented lines stay lines. Brackets are text, not markup."""
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    return escape("\n\n".join(p if "\n " in p else " ".join(p.split("\n")) for p in paragraphs))


def main() -> None:
    """Entry point: an error that the user can mend is one line and exit status 1."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        build_app()()
    except IncompatibleDonorsError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(1)
    except LayerTracerError as error:
        typer.echo(f"Error: {' '.join(str(error).split())}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        typer.echo("Interrupted.", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
