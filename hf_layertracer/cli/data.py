"""`layertracer data`: choose what to train on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ..data_selection.config import SelectionConfig
from .options import TrustRemoteCode, with_options


command = typer.Typer(help="Choose what to train on.", no_args_is_help=True)


@command.callback()
def _group() -> None:
    """Choose what to train on."""


@command.command()
@with_options(SelectionConfig)
def select(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help="Files (.txt, .jsonl, .parquet, .csv) or datasets on the Hub."),
    ],
    model: Annotated[str, typer.Option(help="Hub id or folder of the model that is to be trained.")],
    config: SelectionConfig,
    reference: Annotated[str | None, typer.Option(help="excess-loss: the model to compare with.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for selected.jsonl; run it again after an interruption.")] = Path(
        "layertracer-selection"
    ),
    dtype: Annotated[str, typer.Option(help="Data type of the weights: auto, float32, bfloat16, float16.")] = "auto",
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Keep the best fraction of a corpus.

    excess-loss keeps what the model needs most bits for beyond a reference model that was trained on better text;
    perplexity-band keeps a band of the model's own perplexity. Whether either pays on your data, trials tell.
    Needs: pip install "hf_layertracer[data]".
    """
    from ..errors import LayerTracerError

    try:
        from ..data_selection import select_data
    except ModuleNotFoundError as error:
        raise LayerTracerError(
            f'Selecting data needs {error.name}, which is not installed: pip install "hf_layertracer[data]"'
        ) from error

    record = select_data(
        sources,
        out,
        model=model,
        reference=reference,
        config=config,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
    )
    unit = "bits per byte beyond the reference" if reference else "nats per token"
    table = Table(title=f"{config.score}: {record.kept_bytes / record.bytes:.1%} of the text kept")
    for column in ("", "pieces", "bytes", f"mean score ({unit})"):
        table.add_column(column, justify="right" if column else "left")
    table.add_row("corpus", f"{record.pieces:,}", f"{record.bytes:,}", f"{record.mean_score:.4f}")
    table.add_row("kept", f"{record.kept_pieces:,}", f"{record.kept_bytes:,}", f"{record.kept_mean_score:.4f}")
    Console().print(table)
    typer.echo(f"Selected: {out / 'selected.jsonl'}")
