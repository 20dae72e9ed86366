"""What came of a training run, whatever came of it: nothing here may end one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..logs import get_logger
from ..modeling.devices import peak_bytes
from ..records import TrainingOutcome


logger = get_logger(__name__)


@contextmanager
def ends_no_training(what: str) -> Iterator[None]:
    """Whatever goes wrong inside is logged, and the run goes on.

    Args:
        what (`str`): What was tried, for the message.
    """
    try:
        yield
    except Exception as error:  # a report is never worth a training run
        logger.error(f"LayerTracer could not {what} ({type(error).__name__}: {error!s:.200}). Training goes on.")
        logger.debug("The whole error:", exc_info=True)


def without_tracing(logs: dict[str, float], seconds: float) -> None:
    """Takes the time of tracing out of what a trainer says of its speed; it is told apart.

    Args:
        logs (`dict[str, float]`): What the trainer logs at the end of training; other lines are left as they are.
        seconds (`float`): How long the tracing took while the trainer's clock ran.
    """
    runtime = logs.get("train_runtime")
    if not runtime or seconds <= 0 or seconds >= runtime:
        return
    logs["train_runtime"] = round(runtime - seconds, 4)
    for name in ("train_samples_per_second", "train_steps_per_second", "train_tokens_per_second"):
        if name in logs:
            logs[name] = round(logs[name] * runtime / (runtime - seconds), 3)


def outcome_of(
    log_history: list[dict[str, Any]],
    step: int,
    *,
    seconds: float,
    tokens: int | None,
    device: torch.device,
    **counted: Any,
) -> tuple[TrainingOutcome, list[str]]:
    """What came of a run.

    Args:
        log_history (`list[dict]`): What the trainer logged.
        step (`int`): The step of the model that there is.
        seconds (`float`): Wall time of the steps.
        tokens (`int`, *optional*): Tokens seen by all processes.
        device (`torch.device`): The training device.
        counted: Further fields of [`TrainingOutcome`].

    Returns:
        `tuple[TrainingOutcome, list[str]]`: The record, and notes on losses that it cannot hold.
    """
    peak, owner = peak_bytes(device)
    figures, notes = losses(log_history, step)
    outcome = TrainingOutcome(
        seconds=round(seconds, 3),
        tokens=tokens,
        tokens_per_second=round(tokens / seconds, 2) if tokens and seconds else None,
        peak_memory_bytes=peak,
        peak_memory_of=owner,
        **counted,
        **figures,
    )
    return outcome, notes


def losses(log_history: list[dict[str, Any]], step: int) -> tuple[dict[str, float | None], list[str]]:
    """Training and evaluation losses of a run.

    Args:
        log_history (`list[dict]`): What the trainer logged.
        step (`int`): The step of the model that there is; what was evaluated after it is of a model that was given up.

    Returns:
        `tuple[dict[str, float | None], list[str]]`: `train_loss`, `eval_loss_before`, of an evaluation at step 0, and
            `eval_loss_after`, of the last one up to `step`; `None` where there is none that is a number. And a note on
            each that is NaN, infinite or beyond all measure.
    """
    training = [entry["train_loss"] for entry in log_history if "train_loss" in entry]
    evaluations = _evaluation_losses(log_history, step)
    before = [loss for at, loss in evaluations if at == 0]
    after = [loss for at, loss in evaluations if at > 0]
    found = {
        "train_loss": training[-1] if training else None,
        "eval_loss_before": before[0] if before else None,
        "eval_loss_after": after[-1] if after else None,
    }
    titles = {
        "train_loss": "The training loss",
        "eval_loss_before": "The evaluation loss before training",
        "eval_loss_after": "The evaluation loss after training",
    }
    numbers = {name: _number(value) for name, value in found.items()}
    notes = [
        f"{titles[name]} was {value}, which no report can hold: it is left out."
        for name, value in found.items()
        if value is not None and numbers[name] is None
    ]
    return numbers, notes


def notes_at_end(
    log_history: list[dict[str, Any]], step: int, kept: int, left_out: int, changes: int = 0
) -> list[str]:
    """What a reader must know of the model that a run leaves, where that is not the one of its last step.

    Args:
        log_history (`list[dict]`): What the trainer logged.
        step (`int`): The last optimizer step.
        kept (`int`): The step of the model that is left.
        left_out (`int`): Diagnoses of steps after that, which are no part of its report.
        changes (`int`, *optional*, defaults to `0`): Changes of what trains after that, which are none either.

    Returns:
        `list[str]`: Sentences for the report.
    """
    notes = []
    if kept != step:
        gone = " Diagnoses of later steps are left out." if left_out else ""
        gone += " Later changes of what trains are left out." if changes else ""
        notes.append(f"Training ended at step {step} and put the best checkpoint back, that of step {kept}.{gone}")
    evaluated = [at for at, _ in _evaluation_losses(log_history, kept) if at > 0]
    if evaluated and evaluated[-1] != kept:
        notes.append(f"The evaluation loss after training is of step {evaluated[-1]}; the model is of step {kept}.")
    return notes


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    # Beyond this a record takes no number; no loss that means anything is there.
    return number if math.isfinite(number) and abs(number) <= 1e30 else None


def _evaluation_losses(log_history: list[dict[str, Any]], last: int) -> list[tuple[int, Any]]:
    """Steps up to the last one and their evaluation losses, as they were logged; of several evaluation sets, the first."""
    names = [name for entry in log_history for name in entry if name.startswith("eval_") and name.endswith("loss")]
    found = [(entry.get("step", last), entry[names[0]]) for entry in log_history if names and names[0] in entry]
    return [(step, loss) for step, loss in found if step <= last]
