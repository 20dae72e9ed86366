"""`layertracer view`."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path
from typing import Annotated

import typer

from ..errors import LayerTracerError


_CHECKED = 100  # reports that are opened before the page is: a folder may hold thousands


def command(
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="[REPORT|DIR|REPO]...", help="Report files, folders with some, or Hub ids."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 lets others look.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Port; a free one from 7860 on by default.")] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    token_from_login: Annotated[
        bool,
        typer.Option(
            "--token-from-login", help="Open private repositories too, with your login; only on this machine."
        ),
    ] = False,
    push: Annotated[str | None, typer.Option(metavar="REPO", help="Create this Space on the Hub instead.")] = None,
    private: Annotated[bool | None, typer.Option(help="With --push: who sees a new Space.")] = None,
    exist_ok: Annotated[
        bool, typer.Option("--exist-ok", help="With --push: overwrite a Space with another app.")
    ] = False,
) -> None:
    """Look at reports in a browser: see one, compare several, try allocations.

    Without a name, the examples that ship with the viewer are shown. Needs: pip install "hf_layertracer[viewer]".
    """
    if port is not None and not 0 < port < 2**16:
        raise LayerTracerError(f"There is no port {port}: ports are 1 to {2**16 - 1}.")
    try:
        socket.getaddrinfo(host, None)
    except (OSError, UnicodeError) as error:
        raise LayerTracerError(f"{host!r:.80} is no address of this machine: {error}.") from error
    from ..viewer.report_sources import find_reports

    found = find_reports(sources or [])
    _name_broken(found)
    try:
        from ..viewer.app import build_app, serve
        from ..viewer.space import example_reports, push_space
    except ModuleNotFoundError as error:
        raise LayerTracerError(
            f'The viewer needs {error.name}, which is not installed: pip install "hf_layertracer[viewer]"'
        ) from error

    if token_from_login and (push is not None or not _is_loopback(host)):
        raise LayerTracerError(
            "--token-from-login shows your private repositories: it works only where nobody else reaches the page, at "
            "--host 127.0.0.1."
        )
    if push is not None:
        remote = [source for source in found.values() if isinstance(source, str)]
        if remote:
            raise LayerTracerError(
                f"A Space starts with files, and {remote[0]} is not one: leave it out; the Space can open it."
            )
        files = {name: Path(source) for name, source in found.items()}
        typer.echo(f"Space: {push_space(push, reports=files, private=private, exist_ok=exist_ok)}")
        return
    page = build_app(sources or [example_reports()], token_from_login=token_from_login)
    serve(page, server_name=host, server_port=port, inbrowser=browser)


def _name_broken(found: dict[str, Path | str]) -> None:
    """Says which files cannot be shown; where none can, there is no page to look at."""
    from ..viewer.report_sources import read_report

    files = [Path(source) for source in found.values() if not isinstance(source, str)]
    problems = []
    for path in files[:_CHECKED]:
        try:
            read_report(path, "/".join(path.parts[-2:]))
        except LayerTracerError as error:
            problems.append(str(error))
    if problems and len(problems) == len(found):
        raise LayerTracerError(problems[0])
    for problem in problems:
        typer.echo(f"Left out: {problem}", err=True)


def _is_loopback(host: str) -> bool:
    """Whether an address is this machine's own alone."""
    return all(ipaddress.ip_address(place[4][0]).is_loopback for place in socket.getaddrinfo(host, None))
