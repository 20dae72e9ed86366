"""How closely a model is looked at before it trains: a diagnosis should cost little beside the training.

Costs are compared as arithmetic, not by a clock, so that the same run is measured the same way on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from transformers import TrainingArguments

from ..config import DiagnosisConfig
from ..diagnosis.quick import QUICK_PROBES, quick_look
from ..planning.config import LayerTracerConfig
from ..probes import Probe
from ..records import ReportData


# A full diagnosis may take this part of the training.
_SHARE = 0.1
_DRAWS = 160  # of random masks over all probes, by default
_EFFORT = ("perturbation", "repeats", "until_stderr", "until_boundary", "skip_probes")
_CHARACTERS = 4  # of a token, about


def share_of_training(probes: Sequence[Probe], num_layers: int, tokens: float) -> float:
    """What a full diagnosis takes, as a part of the training.

    Each draw on a layer runs the layers behind it, half of them on average; a trained token runs all of them forward, and
    backward for twice as much.

    Args:
        probes (`Sequence[Probe]`): What it would be made with.
        num_layers (`int`): Layers of the model.
        tokens (`float`): Tokens of the whole training.

    Returns:
        `float`: Above 1 where it takes longer than the training.
    """
    lengths = [len(p.prompt) / (_CHARACTERS if isinstance(p.prompt, str) else 1) for p in probes]
    draws = max(_DRAWS, len(probes)) + len(probes)  # masks, and each layer skipped
    diagnosis = draws * sum(lengths) / max(len(lengths), 1) * num_layers**2 / 2
    return diagnosis / (3 * num_layers * max(tokens, 1))


def rows_to_train(args: TrainingArguments, dataset: Any) -> float | None:
    """How many rows of its data a whole run reads, where that is known.

    Args:
        args ([`~transformers.TrainingArguments`]): The run's arguments.
        dataset (`Any`): Its training data.

    Returns:
        `float` or `None`: `None` for a stream that is read for whole epochs.
    """
    if args.max_steps > 0:
        return args.max_steps * args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    if isinstance(dataset, dict) or not hasattr(dataset, "__len__"):
        return None
    return len(dataset) * args.num_train_epochs


def tokens_to_train(rows: Sequence[Any], rows_to_train: float | None) -> float | None:
    """Tokens of a whole training, from some of its rows.

    Args:
        rows (`Sequence[Any]`): Rows of the data.
        rows_to_train (`float`, *optional*): How many rows the training reads.

    Returns:
        `float` or `None`: `None` where that is not known, or where rows hold no token ids.
    """
    ids = [row.get("input_ids") for row in rows if isinstance(row, dict)]
    lengths = [len(one) for one in ids if hasattr(one, "__len__")]
    if rows_to_train is None or not lengths:
        return None
    return rows_to_train * sum(lengths) / len(lengths)


def wants_quick_look(
    config: LayerTracerConfig, probes: Sequence[Probe], num_layers: int, tokens: float | None
) -> tuple[bool, str | None]:
    """Whether a quick look does for a run.

    Args:
        config ([`LayerTracerConfig`]): The settings; those that say how closely to measure are kept.
        probes (`Sequence[Probe]`): The probes of the run.
        num_layers (`int`): Layers of the model.
        tokens (`float`, *optional*): Tokens of the whole training, where they are known.

    Returns:
        `tuple[bool, str | None]`: Whether it does, and the line that says so where nobody has asked for it.
    """
    if config.quick_look is not None:
        return config.quick_look, None
    if config.report is not None:  # measured already
        return False, None
    chosen = any(getattr(config, own.name) != own.default for own in fields(DiagnosisConfig) if own.name in _EFFORT)
    if tokens is None or chosen or config.strategy_options().get("measure") not in (None, "skip", "context"):
        return False, None
    share = share_of_training(probes, num_layers, tokens)
    if share <= _SHARE:
        return False, None
    size = (
        f"{share:.0%} of the arithmetic of this training"
        if share < 1
        else f"{share:.1f} times as long as this training"
    )
    return (
        True,
        f"The model gets a quick look: a full diagnosis would take {size}. quick_look=False makes it all the same.",
    )


def settle(
    config: LayerTracerConfig,
    probes: list[Probe],
    num_layers: int,
    tokens: float | None,
    report: ReportData | None = None,
) -> tuple[DiagnosisConfig, list[Probe], str | None]:
    """Settles how closely a model is measured, before a run and during it.

    Args:
        config ([`LayerTracerConfig`]): The settings.
        probes (`list[Probe]`): The probes of the run.
        num_layers (`int`): Layers of the model.
        tokens (`float`, *optional*): Tokens of the whole training, where they are known.
        report ([`ReportData`], *optional*): Of a run that goes on: it is measured as it was at first.

    Returns:
        `tuple[DiagnosisConfig, list[Probe], str | None]`: The settings, the probes, of a quick look some from all over them,
            and the line that says so.
    """
    settings = config.diagnosis()
    quick, line = wants_quick_look(config, probes, num_layers, tokens)
    if report is not None and config.quick_look is None:
        quick = report.is_measured and report.settings.skip_probes != config.skip_probes
    if not quick:
        return settings, probes, None
    return quick_look(settings, num_layers), some_from_all_over(probes), line


def some_from_all_over(probes: list[Probe]) -> list[Probe]:
    """The probes of a quick look.

    Args:
        probes (`list[Probe]`): All probes of a run.

    Returns:
        `list[Probe]`: At most `QUICK_PROBES` of them.
    """
    every = max(len(probes) // QUICK_PROBES, 1)
    return probes[::every][:QUICK_PROBES]
