"""`layertracer hybrid`: build models of several donors' layers, look at them, push them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..hybrid.healing.config import HealingConfig
from .options import with_options


command = typer.Typer(
    help="Build models of several donors' layers or with new mixers, and heal them.", no_args_is_help=True
)


@command.command()
def build(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML or JSON; mergekit's passthrough files too.")],
    out: Annotated[Path, typer.Option(help="Folder for the model; it must not exist, or be empty.")],
    push: Annotated[str | None, typer.Option(metavar="REPO", help="Push it to this repository on the Hub.")] = None,
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Who sees a new repository; by default as your account has it."),
    ] = None,
    diagnose: Annotated[bool, typer.Option("--diagnose", help="Diagnose it, with the built-in probes.")] = False,
    max_shard_size: Annotated[int, typer.Option(min=1, help="Bytes per file.")] = 5 * 10**9,
) -> None:
    """Build a hybrid from a recipe, tensor by tensor, and verify it against its donors.

    A recipe names a base and, for ranges of layers, the donors; see the documentation for all that it can say. The
    result is complete or not there.
    """
    from ..hybrid.build import build_hybrid
    from ..hybrid.push import push_hybrid

    record = build_hybrid(recipe, out, max_shard_size=max_shard_size)
    Console().print(_table(record))
    typer.echo(f"Hybrid: {out}")
    if diagnose:
        _diagnose(out)
    if push is not None:
        typer.echo(f"Pushed: {push_hybrid(out, push, private=private).commit_url}")


@command.command()
def show(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of a hybrid, or its layertracer_hybrid.json.")
    ],
    picture: Annotated[Path | None, typer.Option(help="Also draw the stack into this PNG file.")] = None,
) -> None:
    """Show where each layer of a hybrid comes from, and how that was verified."""
    from ..files import write_atomically
    from ..hybrid.picture import picture as drawn
    from ..hybrid.provenance import HybridRecord

    record = HybridRecord.load(directory)
    console = Console()
    console.print(_table(record))
    for note in record.notes:
        console.print(f"Note: {note}", markup=False)
    if picture is not None:
        write_atomically(picture, drawn(record))
        typer.echo(f"Picture: {picture}")


@command.command()
def propose(
    report: Annotated[str, typer.Argument(metavar="REPORT", help="A report: file, folder or Hub id.")],
    other: Annotated[
        str | None, typer.Argument(metavar="[REPORT]", help="Report of a second model, to mix layers of both.")
    ] = None,
    mixers: Annotated[int | None, typer.Option(help="Replace the token mixers of this many layers.")] = None,
    by: Annotated[str, typer.Option(help="Perturbation whose sensitivity decides which.")] = "mixer",
    base: Annotated[str | None, typer.Option(help="Where the model is, if the report does not say.")] = None,
    other_base: Annotated[
        str | None, typer.Option(help="Where the second model is, if its report does not say.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The recipe to write.")] = Path("hybrid.yaml"),
) -> None:
    """Write a recipe from measurements, to be read and changed by hand.

    From one report: replace the token mixers whose loss moves the output least. From two reports over the same probes:
    the better model's layers from its Task Particle on, the other's below.
    """
    from ..hybrid.propose import propose_hybrid
    from ..report import LayerTracerReport

    second = None if other is None else LayerTracerReport.load(other)
    recipe = propose_hybrid(
        LayerTracerReport.load(report), second, n_mixers=mixers, by=by, base=base, other_base=other_base
    )
    recipe.save(out)
    typer.echo(recipe.reason)
    typer.echo(f"Recipe: {out}")


@command.command()
@with_options(HealingConfig)
def heal(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a hybrid with new mixers.")],
    data: Annotated[list[Path], typer.Option(help="Text file to heal on; may be given several times.")],
    out: Annotated[Path, typer.Option(help="Folder for the healed model.")],
    config: HealingConfig,
    donor: Annotated[
        str | None, typer.Option(help="The model before its mixers were replaced; from the recipe by default.")
    ] = None,
) -> None:
    """Teach the new mixers of a hybrid what the attention did that they replaced.

    After an interruption, the same command goes on from the last checkpoint.
    """
    from ..hybrid.healing.heal import heal_hybrid

    record = heal_hybrid(directory, list(data), out, config, donor=donor)
    for done in record.healings:
        typer.echo(
            f"{done.stage}: {done.tokens:,} tokens in {done.steps} steps, held-out loss {done.loss_before:.4f} → "
            f"{done.loss_after:.4f}"
        )
    typer.echo(f"Healed: {out}")


def _diagnose(folder: Path) -> None:
    from ..diagnosis.diagnose import diagnose
    from ..modeling.loading import load_model
    from ..probes import load_probes
    from .printing import print_report

    model, tokenizer = load_model(str(folder))
    report = diagnose(model, load_probes(tokenizer=tokenizer), tokenizer=tokenizer)
    report.save_or_keep(folder)
    print_report(report)


def _table(record) -> Table:
    from ..hybrid.card import stack_rows
    from ..text import compact_ranges

    verified: dict[str, list[int]] = {}
    for layer in record.layers:
        verified.setdefault(layer.verified, []).append(layer.layer)
    caption = "\n".join(f"Layers {compact_ranges(layers)}: {what}." for what, layers in verified.items())
    table = Table(
        title=escape(f"{record.architecture}: {len(record.layers)} layers on {record.base} in {record.dtype}"),
        caption=escape("\n".join(filter(None, [caption, record.class_verified]))),
        caption_justify="left",
    )
    for column in ("layers", "from", "its layers", "kind", "new mixer"):
        table.add_column(column, overflow="fold")
    for row in stack_rows(record):
        # Names come from other people's files: they are text, not markup.
        table.add_row(*map(escape, row[:-1]))
    for part in ("embeddings", "norm", "head"):
        origin = getattr(record, part)
        table.add_row(part, escape("tied to the embeddings" if origin is None else origin.donor), "", "", "")
    return table
