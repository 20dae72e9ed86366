"""Tables of the report's section in a model card."""

from __future__ import annotations

from typing import Any

from ..records import PlanRecord, Savings, TrainingOutcome
from ..text import compact_ranges
from .markdown_text import name, number, optional, saved, table


_ENDS = 10  # rows at each end of a long history


def savings_table(savings: Savings, counted: str) -> str:
    """What a plan saves against full training.

    Args:
        savings ([`Savings`]): The plan's.
        counted (`str`): What the matrix products count, from [`ModelFacts.counted`].

    Returns:
        `str`: A table, and the size of the model.
    """
    quantities = [
        ("Trainable parameters", "M", 1e6, savings.trainable_parameters, savings.trainable_parameters_full),
        ("Optimizer state (Adam, float32)", "MiB", 2**20, savings.optimizer_bytes, savings.optimizer_bytes_full),
        ("Gradients", "MiB", 2**20, savings.gradient_bytes, savings.gradient_bytes_full),
        (f"Matrix products per token{counted}", "GFLOPs", 1e9, savings.flops_per_token, savings.flops_per_token_full),
    ]
    rows = [
        [label, f"{number(plan / scale)} {unit}", f"{number(full / scale)} {unit}", saved(plan, full)]
        for label, unit, scale, plan, full in quantities
    ]
    total = f"The model has {number(savings.total_parameters / 1e6)} M parameters in all."
    return f"{table(['', 'This plan', 'Full training', 'Saved'], rows)}\n\n{total}"


def history_table(plans: list[PlanRecord]) -> str:
    """What trained when, where a strategy has changed that.

    Args:
        plans (`list[PlanRecord]`): The plans in their order, two at least.

    Returns:
        `str`: A table; of a long history, its beginning and its end.
    """
    rows = []
    before: set[int] | None = None
    for record in plans:
        trained = set(record.plan.trained_layers)
        added, gone = (trained - before, before - trained) if before is not None else (set(), set())
        change = [f"+ {compact_ranges(sorted(added))}"] * bool(added) + [f"- {compact_ranges(sorted(gone))}"] * bool(
            gone
        )
        millions = f"{number(record.plan.savings.trainable_parameters / 1e6)} M"
        rows.append([str(record.step), compact_ranges(record.plan.trained_layers), ", ".join(change), millions])
        before = trained
    left_out = len(rows) - 2 * _ENDS
    if left_out > 1:
        rows = [*rows[:_ENDS], ["…", f"{left_out} more", "", ""], *rows[-_ENDS:]]
    return table(["From step", "Trained layers", "Change", "Parameters that train"], rows)


def training_table(training: TrainingOutcome) -> str:
    """What a training run took and came to.

    Args:
        training ([`TrainingOutcome`]): The run.

    Returns:
        `str`: A table of what is known.
    """
    expected = training.expected_memory_bytes
    rows: list[list[Any]] = [
        ["Optimizer steps", f"{training.steps:,}"],
        ["Wall time", f"{number(training.seconds)} s"],
        ["Tokens, padding included", None if training.tokens is None else f"{training.tokens:,}"],
        ["Tokens per second", optional(training.tokens_per_second)],
        [f"Peak memory ({name(training.peak_memory_of)})", f"{number(training.peak_memory_bytes / 2**20)} MiB"],
        ["Estimated before", expected and f"{number(expected / 2**20)} MiB"],
        ["Trained parameters", f"{number(training.trainable_parameters / 1e6)} M"],
        ["Mean training loss", optional(training.train_loss)],
        ["Evaluation loss before", optional(training.eval_loss_before)],
        ["Evaluation loss after", optional(training.eval_loss_after)],
    ]
    return table(["", "Measured"], [row for row in rows if row[1] is not None])
