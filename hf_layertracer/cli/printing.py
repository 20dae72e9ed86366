"""What commands print: tables for people."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..planning.cost import weights_bytes
from ..records import LayerPlan, ModelFacts, ReportData
from ..text import compact_ranges, gibibytes, one_line, with_error


if TYPE_CHECKING:
    from ..estimate import TrainingEstimate
    from ..trials.tables import ResultTable

_EDGE = 3  # of a column: a space on both sides and a line


def print_report(report: ReportData) -> None:
    """Prints what was measured."""
    particle, scores = report.first.task_particle, report.first.sensitivity
    table = Table(title=escape(f"{report.model.name}: {report.num_layers} layers"))
    table.add_column("Measured")
    table.add_column("Result")
    resolved = f"{report.probes.count - (particle.unresolved or 0)} of {report.probes.count} probes"
    if particle.layer is None:
        table.add_row(
            "Task Particle", "unresolved" if report.first.lens.valid else "the lens is not valid for this model"
        )
    else:
        interval = "95 % interval {:g} to {:g}; ".format(*particle.interval) if particle.interval else ""
        table.add_row("Task Particle", f"layer {particle.layer:g} ({interval}{resolved})")
    worst = scores.vulnerable_layer
    error = scores.stderr[worst] if scores.stderr_known else None
    table.add_row("Layer Sensitivity", f"highest at layer {worst}: {with_error(scores.mean[worst], error)} bits")
    error = scores.shallow_minus_deep_stderr if scores.stderr_known else None
    table.add_row("Shallow minus deep half", f"{with_error(scores.shallow_minus_deep, error, sign=True)} bits")
    answers = report.first.scores
    table.add_row("Accuracy", f"{answers.accuracy:.1%} (the target is the likeliest of all tokens)")
    if answers.choice_accuracy is not None:
        chance = f"; chance {answers.choice_chance:.1%}" if answers.choice_chance is not None else ""
        table.add_row(
            "Accuracy over the choices", f"{answers.choice_accuracy:.1%} (the likeliest of its choices{chance})"
        )
    table.add_row("Computed by", scores.path)
    if report.plan is not None:
        table.add_row(f"Plan ({report.plan.strategy}), trains", compact_ranges(report.plan.trained_layers))
        table.add_row(f"Plan ({report.plan.strategy}), freezes", compact_ranges(report.plan.frozen_layers))
    console = Console()
    console.print(table)
    for note in report.notes:
        console.print(f"Note: {note}", markup=False)


def print_plan(made: LayerPlan, facts: ModelFacts) -> None:
    """Prints a plan against full training."""
    savings = made.savings
    table = Table(title=f"Plan: {made.strategy}", caption=made.reason)
    for column in ("", "this plan", "full training"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row("trained layers", compact_ranges(made.trained_layers), f"0-{made.num_layers - 1}")
    table.add_row("frozen layers", compact_ranges(made.frozen_layers), "none")
    parameters = (savings.trainable_parameters, savings.trainable_parameters_full)
    table.add_row("trainable parameters", *(f"{count / 1e6:.2f} M" for count in parameters))
    weights = weights_bytes(facts)
    gradients = (savings.gradient_bytes, savings.gradient_bytes_full)
    moments = (savings.optimizer_bytes, savings.optimizer_bytes_full)
    table.add_row("weights", gibibytes(weights), gibibytes(weights))
    table.add_row("gradients", *map(gibibytes, gradients))
    table.add_row("Adam's moments", *map(gibibytes, moments))
    total = (weights + gradient + moment for gradient, moment in zip(gradients, moments, strict=True))
    table.add_row("sum (activations: --estimate)", *map(gibibytes, total))
    table.add_row(
        f"FLOPs per token{facts.counted}",
        *(f"{f / 1e9:.2f} G" for f in (savings.flops_per_token, savings.flops_per_token_full)),
    )
    Console().print(table)


def print_estimate(estimate: TrainingEstimate, as_json: bool) -> None:
    """Prints what a run takes, under the plan and in full."""
    if as_json:
        typer.echo(estimate.model_dump_json(indent=1))
        return
    settings = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in estimate.assumptions.items())
    table = Table(title="Memory and time of one step on one device", caption=escape(settings))
    for column in ("", "this plan", "full training", "how"):
        table.add_column(column, justify="right" if column in ("this plan", "full training") else "left")
    shared = "traced" if estimate.assumptions["world_size"] == 1 else "traced, shares counted"
    rows = [
        ("weights", "weights_bytes", "counted"),
        ("gradients", "gradient_bytes", shared),
        ("optimizer state", "optimizer_bytes", shared),
        ("activations", "activation_bytes", "traced"),
        ("workspace", "workspace_bytes", shared),
        ("fullest moment", "total_bytes", shared),
    ]
    both = (estimate, estimate.full or estimate)
    for label, name, how in rows:
        table.add_row(label, *(f"{getattr(one, name) / 2**30:.2f} GiB" for one in both), how)
    table.add_row("operations", *(f"{one.flops_per_step / 1e12:.3g} TFLOP" for one in both), "traced")
    if estimate.seconds_per_step is not None:
        times = (f"{one.seconds_per_step:.3g} s" for one in both)
        table.add_row("time", *times, "device table, at 40 % of the published rate")
    if estimate.device_bytes is not None:
        label = escape(f"fits {estimate.device} ({estimate.device_bytes / 2**30:.4g} GiB)")
        table.add_row(label, *("yes" if one.fits else "no" for one in both), "with a tenth on top")
    Console().print(table)
    if estimate.fits is False:
        found = estimate.proposal
        typer.echo(
            f"It would fit with {found}." if found else "No batch makes it fit: freeze more, or shard the model."
        )


def reports_table(rows: list[dict[str, Any]]) -> Table:
    """Reports side by side.

    Args:
        rows (`list[dict[str, Any]]`): From [`compare_reports`].

    Returns:
        `Table`: The table.
    """
    places = {row["repo_id"] for row in rows}
    same_place = places.pop() if len(places) == 1 else None
    title = f"{len(rows)} report{'s' if len(rows) > 1 else ''}" + (f" in {same_place}" if same_place else "")
    table = Table(title=escape(title))
    # In 80 columns nothing is cut: the date stands below the name, and what is too wide goes on in the next line.
    table.add_column("report", overflow="fold", min_width=16)
    for column in ("Task Particle", "vulnerable layer", "accuracy", "trains", "eval loss"):
        table.add_column(column, justify="right", overflow="fold", min_width=6)
    for row in rows:
        particle, losses = row["task_particle"], [row["eval_loss_before"], row["eval_loss_after"]]
        folder = (row["subfolder"] or "").rsplit("/", 1)[-1]
        cells = [
            folder or (row["revision"][:12] if same_place else row["repo_id"]),
            "-" if particle is None else f"{particle:g} of {row['layers']}",
            f"{row['vulnerable_layer']}: {with_error(row['highest_sensitivity'])}",
            f"{row['accuracy']:.1%}",
            "-" if row["trained_layers"] is None else compact_ranges(row["trained_layers"]),
            " → ".join("?" if loss is None else f"{loss:.3f}" for loss in losses) if any(losses) else "-",
        ]
        # Names come from other people's files: they are text, not markup.
        name, *values = (escape(one_line(cell, 100)) for cell in cells)
        table.add_row(f"{name}\n{escape(row['date'][:10])}", *values)
    return table


def comparison_table(rows: list[dict[str, Any]]) -> Table:
    """Reports side by side, one column a report.

    Args:
        rows (`list[dict[str, Any]]`): From [`comparison_rows`].

    Returns:
        `Table`: The table.
    """
    table = Table(title=f"{len(rows)} reports")
    table.add_column("")
    for row in rows:
        table.add_column(escape(one_line(row["report"], 60)), justify="right", overflow="fold")
    cells: dict[str, Callable[[dict[str, Any]], str]] = {
        "model": lambda row: escape(one_line(row["model"], 60)),
        "layers": lambda row: str(row["layers"]),
        "Task Particle": lambda row: _at_depth(row, "task_particle"),
        "vulnerable layer": lambda row: _at_depth(row, "vulnerable_layer"),
        "highest Layer Sensitivity": lambda row: with_error(row["highest_sensitivity"]),
        "shallow minus deep half": lambda row: with_error(
            row["shallow_minus_deep"], row["shallow_minus_deep_stderr"], sign=True
        ),
        "accuracy": lambda row: f"{row['accuracy']:.1%}",
        "accuracy over the choices": lambda row: _or_dash(row["choice_accuracy"], ".1%"),
        "mean log-probability": lambda row: f"{row['mean_log_probability']:.3f}",
        "plan": lambda row: row["strategy"] or "-",
        "evaluation loss": lambda row: (
            f"{_or_dash(row['eval_loss_before'], '.3f')} → {_or_dash(row['eval_loss_after'], '.3f')}"
        ),
    }
    for label, cell in cells.items():
        table.add_row(label, *(cell(row) for row in rows))
    return table


def _at_depth(row: dict[str, Any], name: str) -> str:
    return "-" if row[name] is None else f"{row[name]:g} (depth {row[f'{name}_depth']:.2f})"


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def print_result_table(console: Console, table: ResultTable) -> None:
    """Prints a table of a trial; one that is too wide in parts, each with the first column, so that no word is broken.

    Args:
        console (`Console`): Where to.
        table ([`ResultTable`]): The table.
    """
    columns = list(zip(table.columns, *table.rows, strict=True))
    least = [max(map(cell_len, " ".join(cells).split()), default=0) for cells in columns]
    for number, part in enumerate(_parts(least, console.width)):
        shown = Table(title=escape(table.title if number == 0 else f"{table.title}, continued"))
        spare = console.width - 1 - sum(least[index] + _EDGE for index in part)
        for index in part:
            more = max(0, min(spare, max(map(cell_len, columns[index])) - least[index]))
            spare -= more
            shown.add_column(
                escape(table.columns[index]),
                overflow="fold",
                style="bright_black" if index in table.grey else None,
                justify="left" if index == 0 else "right",
                # Left to itself, rich breaks words in one column while another has room.
                width=least[index] + more if spare >= 0 else None,
            )
        for row in table.rows:
            shown.add_row(*(escape(row[index]) for index in part))
        console.print(shown)
    # Under the last part it would be as narrow as that.
    console.print(table.caption, style="table.caption", markup=False, highlight=False)


def _parts(least: list[int], width: int) -> list[list[int]]:
    """Numbers of the columns that stand beside each other, given the width that each one needs."""
    parts: list[list[int]] = [[0]]
    for index in range(1, len(least)):
        used = 1 + sum(least[other] + _EDGE for other in (*parts[-1], index))
        if used > width and len(parts[-1]) > 1:
            parts.append([0])
        parts[-1].append(index)
    return parts
