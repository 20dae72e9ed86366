"""Where the layers of a hybrid come from: its record beside a report, and the picture of its stack."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import plotly.graph_objects as go
from plotly.subplots import make_subplots
from pydantic import ValidationError

from ..errors import LayerTracerError
from ..hybrid.provenance import HYBRID_FILE, HybridRecord
from ..records import ReportData
from ..report.palette import GREY, kind_colours
from .chart_style import BAR_WIDTH, dress, explain, titled
from .escaping import for_plotly, plain
from .hub_places import HubPlace
from .hub_sources import hub_file
from .report_sources import MAX_LAYERS, read_bounded


_MOST_NAMES, _OTHERS = 12, "others"


def read_hybrid(source: Path | HubPlace, token: bool = False) -> HybridRecord | None:
    """Reads the record of a hybrid that lies beside a report, and may be hostile.

    Args:
        source (`Path` or [`HubPlace`]): The report's file, or where it is on the Hub.
        token (`bool`, *optional*, defaults to `False`): Whether the Hub is read with the owner's login.

    Returns:
        [`HybridRecord`]: The record; `None` where the model is not a hybrid.

    Raises:
        LayerTracerError: The record cannot be read, or is none.
    """
    if isinstance(source, Path):
        path = source.parent / HYBRID_FILE
        return parse_hybrid(read_bounded(path)) if path.is_file() else None
    content = hub_file(source, HYBRID_FILE, token)
    return None if content is None else parse_hybrid(content)


def parse_hybrid(content: bytes) -> HybridRecord:
    """Makes a record of the bytes of a file that may be hostile.

    Args:
        content (`bytes`): The file's content.

    Returns:
        [`HybridRecord`]: The record.

    Raises:
        LayerTracerError: It is none, or of too many layers.
    """
    try:
        record = HybridRecord.model_validate_json(content, strict=True)
    except (ValidationError, RecursionError) as error:
        said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "it is nested too deeply"
        raise LayerTracerError(f"{HYBRID_FILE} is not the record of a hybrid: {plain(said, 120)}.") from error
    if not 0 < len(record.layers) <= MAX_LAYERS:
        raise LayerTracerError(f"{HYBRID_FILE} has {len(record.layers)} layers; 1 to {MAX_LAYERS} can be shown.")
    return record


def hybrid_figure(record: HybridRecord, report: ReportData | None) -> go.Figure:
    """The stack of a hybrid by donor and by kind, under the sensitivity of its layers.

    Args:
        record ([`HybridRecord`]): The hybrid.
        report ([`ReportData`], *optional*): Its report; one of another depth is left out.

    Returns:
        `go.Figure`: Two or three rows on one layer axis; hatched layers have a new token mixer.
    """
    measured = report.first.sensitivity if report and report.num_layers == len(record.layers) else None
    rows = 3 if measured else 2
    figure = make_subplots(
        rows=rows, cols=1, shared_xaxes=True, vertical_spacing=0.12, row_heights=[0.6, 0.2, 0.2][-rows:]
    )
    dress(figure, "", "", "")
    layers = list(range(len(record.layers)))
    if measured:
        figure.add_bar(
            x=layers,
            y=measured.mean,
            error_y={"array": measured.stderr, "thickness": 1.5} if measured.stderr_known else None,
            width=BAR_WIDTH,
            marker={"color": GREY},
            hovertext=[f"{value:.3f} bits<br>{explain('Layer Sensitivity')}" for value in measured.mean],
            hoverinfo="text",
            showlegend=False,
            row=1,
            col=1,
        )
        figure.update_yaxes(title="bits", rangemode="tozero", row=1, col=1)
        titled(figure, "Layer Sensitivity", 1)
    for row, title, names in (
        (rows - 1, "Donor (hatched: new token mixer)", [layer.donor for layer in record.layers]),
        (rows, "Kind of layer", [layer.kind for layer in record.layers]),
    ):
        few = _few(names)
        for name, colour in kind_colours(few).items():
            here = [layer for layer in layers if few[layer] == name]
            hatches = ["/" if record.layers[layer].mixer else "" for layer in here]
            figure.add_bar(
                x=here,
                y=[1] * len(here),
                width=BAR_WIDTH,
                marker={"color": colour, "pattern": {"shape": hatches}},
                name=for_plotly(name),
                hovertext=[_origin(record, layer) if row == rows - 1 else for_plotly(names[layer]) for layer in here],
                hoverinfo="text",
                row=row,
                col=1,
            )
        figure.update_yaxes(visible=False, range=[0, 1], row=row, col=1)
        titled(figure, title, row)
    figure.update_xaxes(range=[-0.7, len(layers) - 0.3], unifiedhovertitle={"text": "layer %{x}"})
    figure.update_xaxes(title="layer", row=rows, col=1)
    figure.update_layout(
        hovermode="x unified", hoversubplots="axis", barmode="overlay", height=180 + 130 * rows, showlegend=True
    )
    return figure


def _few(names: list[str]) -> list[str]:
    """The same names, the rarest of too many as one: each is a trace, and a browser draws few of them quickly."""
    often = [name for name, _ in Counter(names).most_common(_MOST_NAMES)]
    return [name if name in often else _OTHERS for name in names]


def _origin(record: HybridRecord, layer: int) -> str:
    found = record.layers[layer]
    mixer = f"<br>new mixer: {for_plotly(found.mixer)}, {for_plotly(found.init)}" if found.mixer else ""
    return f"layer {found.donor_layer} of {for_plotly(found.donor)}{mixer}<br>{for_plotly(found.verified, 80)}"
