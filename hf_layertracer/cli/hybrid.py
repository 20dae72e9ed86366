"""`layertracer hybrid`: build models of several donors' layers, and look at them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table


command = typer.Typer(help="Build models of several donors' layers, and look at them.", no_args_is_help=True)


@command.command()
def build(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML or JSON; mergekit's passthrough files too.")],
    out: Annotated[Path, typer.Option(help="Folder for the model; it must not exist, or be empty.")],
    max_shard_size: Annotated[int, typer.Option(min=1, help="Bytes to a file.")] = 5 * 10**9,
) -> None:
    """Build a hybrid from a recipe, tensor by tensor, and verify it against its donors.

    A recipe names a base and, for ranges of layers, the donors; see the documentation for all that it can say. The
    result is complete or not there.
    """
    from ..hybrid import build_hybrid

    record = build_hybrid(recipe, out, max_shard_size=max_shard_size)
    Console().print(_table(record))
    typer.echo(f"Hybrid: {out}")


@command.command()
def show(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of a hybrid, or its layertracer_hybrid.json.")
    ],
) -> None:
    """Show where each layer of a hybrid comes from, and how that was verified."""
    from ..hybrid import HybridRecord

    record = HybridRecord.load(directory)
    console = Console()
    console.print(_table(record))
    for note in record.notes:
        console.print(f"Note: {note}", markup=False)


def _table(record) -> Table:
    from ..text import compact_ranges

    table = Table(
        title=escape(f"{record.architecture}: {len(record.layers)} layers on {record.base} in {record.dtype}")
    )
    for column in ("layers", "from", "its layers", "kind", "new mixer", "verified"):
        table.add_column(column, overflow="fold")
    for run in _runs(record.layers):
        first = run[0]
        donor = first.donor if first.revision is None else f"{first.donor}@{first.revision[:12]}"
        mixer = "-" if first.mixer is None else f"{first.mixer}, {first.init}"
        cells = (
            compact_ranges([entry.layer for entry in run]),
            donor,
            compact_ranges([entry.donor_layer for entry in run]),
            first.kind,
            mixer,
            first.verified,
        )
        # Names come from other people's files: they are text, not markup.
        table.add_row(*(escape(cell) for cell in cells))
    for part in ("embeddings", "norm", "head"):
        origin = getattr(record, part)
        source = "tied to the embeddings" if origin is None else origin.donor
        table.add_row(part, escape(source), "", "", "", "")
    return table


def _runs(layers: list) -> list[list]:
    """Layers that follow each other in the hybrid and in the same donor, and are alike in all that the table says."""
    runs: list[list] = []
    for entry in layers:
        last = runs[-1][-1] if runs else None
        fields = ("donor", "revision", "kind", "mixer", "init", "verified")
        alike = last is not None and all(getattr(last, name) == getattr(entry, name) for name in fields)
        if alike and entry.donor_layer == last.donor_layer + 1:
            runs[-1].append(entry)
        else:
            runs.append([entry])
    return runs
