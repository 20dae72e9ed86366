"""The page of the command line, from the commands themselves."""

from __future__ import annotations

from typing import Any

import click

from hf_layertracer.cli.app import build_command


def commands_page() -> str:
    """Markdown: each command with its help, arguments and options."""
    parts = [
        "# Command line",
        "Made from the commands themselves; `layertracer COMMAND --help` shows the same.",
    ]
    for name, command in sorted(commands(build_command()).items()):
        parts += [f"## `layertracer {name}`", _paragraphs(command.help or ""), *_parameters(command)]
    return "\n\n".join(part for part in parts if part) + "\n"


def commands(group: click.Command, prefix: str = "") -> dict[str, click.Command]:
    """The commands that do something, by name; those of a group are named `group command`."""
    found: dict[str, click.Command] = {}
    for name, command in getattr(group, "commands", {}).items():
        inner = commands(command, f"{prefix}{name} ")
        found |= inner or {f"{prefix}{name}": command}
    return found


def _parameters(command: click.Command) -> list[str]:
    rows = []
    for parameter in command.params:
        if parameter.name == "help":
            continue
        is_option = parameter.opts[0].startswith("-")
        names = [*parameter.opts, *parameter.secondary_opts] if is_option else [_metavar(parameter)]
        default = _default(parameter.default) if is_option else ""
        text = " ".join((parameter.help or "").split())
        rows.append(
            " | ".join(["", ", ".join(f"`{_cell(name)}`" for name in names), _cell(text), default, ""]).strip()
        )
    return ["\n".join(["| | what it does | default |", "|---|---|---|", *rows])] if rows else []


def _metavar(parameter: click.Parameter) -> str:
    return parameter.metavar or (parameter.name or "").upper()


def _default(value: Any) -> str:
    return "" if value is None or value is False or value == () else f"`{value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _paragraphs(text: str) -> str:
    return text.replace("\b\n", "").replace("\f", "").strip()
