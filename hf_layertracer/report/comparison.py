"""Reports side by side, as a table of numbers or as a figure for a paper."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LayerTracerError
from ..files import write_atomically
from ..records import ReportData


if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("csv", "png", "pdf", "svg")


def comparison_rows(reports: Mapping[str, ReportData]) -> list[dict[str, Any]]:
    """One row a report, of its latest diagnosis.

    Args:
        reports (`Mapping[str, ReportData]`): The reports by the name to show.

    Returns:
        `list[dict[str, Any]]`: Figures by name; positions also as fractions of the depth, so that models of different
            depth compare. `None` where something is not known.
    """
    rows = []
    for name, report in reports.items():
        found, sensitivity = report.latest.headline(), report.sensitivity
        error = sensitivity.shallow_minus_deep_stderr if sensitivity.stderr_known else None
        rows.append(
            {
                "report": name,
                "model": report.model.name,
                "layers": report.num_layers,
                "perturbation": report.latest.perturbation,
                **report.placed_headline(),
                "shallow_minus_deep_stderr": error,
                "probes": report.probes.count,
                "accuracy": found["accuracy"],
                "choice_accuracy": report.latest.scores.choice_accuracy,
                "mean_log_probability": found["mean_log_probability"],
                "strategy": report.plan and report.plan.strategy,
                "eval_loss_before": report.training and report.training.eval_loss_before,
                "eval_loss_after": report.training and report.training.eval_loss_after,
                "probes_sha256": report.probes.sha256,
            }
        )
    return rows


def draw_comparison(reports: Mapping[str, ReportData]) -> Figure:
    """Draws Layer Sensitivity with its standard error, and lens probability, on relative depth.

    Args:
        reports (`Mapping[str, ReportData]`): The reports by the name to show.

    Returns:
        `matplotlib.figure.Figure`: Two panels, one curve a report in each.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 5.2), layout="constrained")
    sensitivity, lens = figure.subplots(2, 1, sharex=True)
    for name, report in reports.items():
        total, scores = report.num_layers, report.sensitivity
        depth = [report.relative_depth(layer) for layer in range(-1, total)]
        # Names are other people's text: matplotlib hides labels that begin with an underscore and sets $ as formulas.
        label = " " * name.startswith("_") + name.replace("$", r"\$")
        (line,) = sensitivity.plot(depth[1:], scores.mean, marker="o", markersize=3, linewidth=1.2, label=label)
        if scores.stderr_known:
            low = [mean - error for mean, error in zip(scores.mean, scores.stderr, strict=True)]
            high = [mean + error for mean, error in zip(scores.mean, scores.stderr, strict=True)]
            sensitivity.fill_between(depth[1:], low, high, color=line.get_color(), alpha=0.2, linewidth=0)
        if report.lens.mean_probability:
            lens.plot(depth, report.lens.mean_probability, color=line.get_color(), linewidth=1.2)
        if report.task_particle.layer is not None:
            lens.axvline(report.relative_depth(report.task_particle.layer), color=line.get_color(), linestyle=":")
    sensitivity.set_ylabel("Layer Sensitivity (bits)")
    sensitivity.set_ylim(bottom=0)
    lens.set_ylabel("lens probability of the target")
    lens.set_ylim(bottom=0)
    lens.set_xlabel("relative depth (0: embedding, 1: last layer; dotted: Task Particle)")
    sensitivity.legend(frameon=False, fontsize="small")
    return figure


def write_comparison(reports: Mapping[str, ReportData], path: Path) -> None:
    """Writes the comparison in the format that the file's ending names.

    Args:
        reports (`Mapping[str, ReportData]`): The reports by the name to show.
        path (`Path`): A `.csv`, `.png`, `.pdf` or `.svg` file.

    Raises:
        LayerTracerError: Another ending, or the file cannot be written.
    """
    kind = format_of(path)
    if kind == "csv":
        rows = comparison_rows(reports)
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        write_atomically(path, text.getvalue().encode())
        return
    content = io.BytesIO()
    draw_comparison(reports).savefig(content, format=kind, dpi=200)
    write_atomically(path, content.getvalue())


def format_of(path: Path) -> str:
    """The format that a file's ending names.

    Args:
        path (`Path`): The file.

    Returns:
        `str`: One of [`FORMATS`].

    Raises:
        LayerTracerError: It is none of them.
    """
    kind = path.suffix.lower().lstrip(".")
    if kind not in FORMATS:
        raise LayerTracerError(f"{path} is no file for a comparison: its name must end in .{', .'.join(FORMATS)}.")
    return kind
