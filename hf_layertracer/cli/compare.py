"""`layertracer compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import LayerTracerError
from .options import Token


def command(
    sources: Annotated[
        list[str], typer.Argument(metavar="REPORT REPORT...", help="Report files, folders with one, or Hub ids.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Also write this file: numbers (.csv) or a figure (.png, .pdf, .svg).")
    ] = None,
    token: Token = None,
) -> None:
    """Set reports side by side: a table, and on request the numbers as CSV or a figure for a paper."""
    from rich.console import Console

    from ..files import check_writable
    from ..report import LayerTracerReport
    from ..report.comparison import comparison_rows, format_of, write_comparison
    from .printing import comparison_table

    if out is not None:
        format_of(out)
        check_writable(out.parent)
    if len(sources) < 2:
        raise LayerTracerError("A comparison needs two reports or more.")
    reports: dict[str, LayerTracerReport] = {}
    for source in sources:
        report = LayerTracerReport.load(source, token=token)
        if not report.is_measured:
            raise LayerTracerError(f"Nothing was measured in {source}: there is nothing to compare.")
        reports[_unique(source.rstrip("/"), reports)] = report
    rows = comparison_rows(reports)
    Console().print(comparison_table(rows))
    if len({row["probes_sha256"] for row in rows}) > 1:
        typer.echo("Note: the probes are not the same: compare shapes along the depth, not values.")
    if len({row["perturbation"] for row in rows}) > 1:
        typer.echo("Note: the perturbations are not the same: their sensitivities do not compare.")
    if out is not None:
        write_comparison(reports, out)
        typer.echo(f"Comparison: {out}")


def _unique(source: str, taken: dict) -> str:
    """The last part of a name where that is enough to tell the reports apart, else the whole."""
    short = source.rsplit("/", 1)[-1]
    name = source if short in taken else short
    return name if name not in taken else f"{name} ({len(taken) + 1})"
