"""`layertracer view`."""

from __future__ import annotations

import ipaddress
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import LayerTracerError


if TYPE_CHECKING:
    from ..viewer.report_store import ReportStore

_CHECKED = 100  # reports that are read before anybody looks at them: a folder may hold thousands


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
    if token_from_login and (push is not None or not _is_loopback(host)):
        raise LayerTracerError(
            "--token-from-login shows your private repositories: it works only where nobody else reaches the page, at "
            "--host 127.0.0.1."
        )
    from ..viewer.report_sources import find_reports
    from ..viewer.report_store import ReportStore
    from ..viewer.space import example_reports, push_space

    if push is not None:
        found = find_reports(sources or [])
        remote = [source for source in found.values() if isinstance(source, str)]
        if remote:
            raise LayerTracerError(
                f"A Space starts with files, and {remote[0]} is not one: leave it out; the Space can open it."
            )
        files = {name: Path(source) for name, source in found.items()}
        typer.echo(f"Space: {push_space(push, reports=files, private=private, exist_ok=exist_ok)}")
        return
    store = ReportStore(find_reports(sources or [example_reports()]), token=token_from_login)
    unchecked = _leave_out_broken(store)
    try:
        from ..viewer.app import build_app, serve
    except ModuleNotFoundError as error:
        raise LayerTracerError(
            f'The viewer needs {error.name}, which is not installed: pip install "hf_layertracer[viewer]"'
        ) from error
    page = build_app(store, token_from_login=token_from_login)
    threading.Thread(target=_name_broken, args=(store, unchecked), daemon=True).start()
    serve(page, server_name=host, server_port=port, inbrowser=browser)


def _leave_out_broken(store: ReportStore) -> list[str]:
    """Leaves out the files before the first that can be read, which the page opens with, and names the others."""
    names, problems = store.at_hand({}), []
    for name in names[:_CHECKED]:
        try:
            store.report(name, {})
            break
        except LayerTracerError as error:
            problems.append(error)
            store.leave_out(name)
    if problems and not store.names({}):
        raise problems[0]
    for problem in problems:
        typer.echo(f"Left out: {problem}", err=True)
    return names[len(problems) + 1 : _CHECKED]


def _name_broken(store: ReportStore, names: list[str]) -> None:
    """Says which files cannot be shown, while the page is there already: reading them all takes a while."""
    for name in names:
        try:
            store.report(name, {})
        except LayerTracerError as error:
            typer.echo(f"Cannot be shown: {error}", err=True)


def _is_loopback(host: str) -> bool:
    """Whether an address is this machine's own alone."""
    return all(ipaddress.ip_address(place[4][0]).is_loopback for place in socket.getaddrinfo(host, None))
