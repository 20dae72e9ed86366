"""The tables of a trial, for the terminal and for `results.md` alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..evaluation.estimates import SeedEstimate
from ..text import compact_ranges
from .arms import ArmConfig
from .config import UNTOUCHED
from .results import TrialsResult
from .summary import MetricMean, Summary, verdict


@dataclass(frozen=True)
class ResultTable:
    """One table of text.

    Args:
        title (`str`): What it shows.
        columns (`list[str]`): Headings; the first column names the arm.
        rows (`list[list[str]]`): Cells.
        caption (`str`): How to read it.
        grey (`set[int]`): Columns that say nothing, and are shown so.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    caption: str
    grey: set[int] = field(default_factory=set)


def result_tables(result: TrialsResult) -> list[ResultTable]:
    """All tables of a trial.

    Args:
        result ([`TrialsResult`]): The trial, finished or not.

    Returns:
        `list[ResultTable]`: Learned and forgotten, differences between arms, all metrics, cost.
    """
    summary = Summary(result)
    tables = []
    if result.untouched is not None:
        tables += [_headline(result, summary), _between(summary), _metrics(result, summary)]
    return [table for table in [*tables, _cost(result)] if table is not None and table.rows]


def _headline(result: TrialsResult, summary: Summary) -> ResultTable | None:
    objective = summary.objective
    parts: list[tuple[str, Callable[[str], SeedEstimate | None], str, tuple[str, str]]] = [
        ("learned", summary.learned, objective.learn, ("learned", "worse")),
        ("forgotten", summary.forgotten, objective.forget, ("forgot", "better")),
    ]
    # A benchmark that the untouched model answers as one who guesses is kept out of here.
    parts = [part for part in parts if part[2] in summary.metrics and not summary.at_chance(part[2])]
    if not parts:
        return None
    columns = ["arm", "seeds"]
    for name, _, metric, _ in parts:
        columns += [f"{name} ({metric})", "± items", "± seeds", ""]
    ranked = summary.has_objective and summary.objective_at_chance() is None and bool(summary.ranking())
    order = summary.ranking() if ranked else summary.arms
    rows = [[UNTOUCHED, "", *["0", "", "", "untouched"] * len(parts), *(["0"] if ranked else [])]]
    for arm in [*order, *(arm for arm in summary.arms if arm not in order)]:
        row = [arm, str(len(result.runs_of(arm)))]
        for _, estimate_of, _, words in parts:
            row += [*_difference(estimate := estimate_of(arm)), verdict(estimate, *words)]
        if ranked:
            score = summary.score(arm)
            row.append("" if score is None else f"{score.value:+.4f}" + _pm(score.stderr))
        rows.append(row)
    if ranked:
        columns.append(f"{objective.w_learn:g} x learned - {objective.w_forget:g} x forgotten")
    return ResultTable(
        "What was learned and what was forgotten",
        columns,
        rows,
        "Against the untouched model, on the same items, mean over seeds. In brackets: the 95 % interval from items and "
        "seeds together; ± is one standard error from each source. Where the interval holds 0: no difference found."
        + _seeds_caveat(result),
    )


def _between(summary: Summary) -> ResultTable | None:
    reference, objective = summary.reference(), summary.objective
    metrics = [
        metric
        for metric in dict.fromkeys([objective.learn, objective.forget, *_accuracies(summary)])
        if metric in summary.metrics and not summary.at_chance(metric)
    ]
    others = [arm for arm in summary.arms if arm != reference]
    if reference is None or not others or not metrics:
        return None
    rows = []
    for arm in others:
        row = [arm]
        for metric in metrics:
            difference = summary.gain(arm, metric, reference)
            row += [_difference(difference)[0], verdict(difference)]
        improvement = summary.relative_improvement(arm, metrics, reference)
        rows.append([*row, "" if improvement is None else f"{improvement:+.1%}"])
    return ResultTable(
        f"Against {reference}",
        [
            "arm",
            *(cell for metric in metrics for cell in (f"gain in {metric}", "")),
            "average relative improvement",
        ],
        rows,
        f"How much better than {reference}, with the same seeds on the same items; above 0 is better, whichever way the "
        "metric points. Each comparison stands alone: of twenty without any effect, one looks like a difference. The "
        "average relative improvement is the mean over these metrics of how many times better, less one, as in arXiv "
        "2605.11416; it has no interval.",
    )


def _metrics(result: TrialsResult, summary: Summary) -> ResultTable:
    metrics = summary.metrics
    rows = [["chance", *(_plain(summary.chance(metric)) for metric in metrics)]]
    rows.append(["n", *(str(summary.n(metric) or "") for metric in metrics)])
    rows += [[arm, *(_mean(summary.mean(arm, metric)) for metric in metrics)] for arm in [UNTOUCHED, *summary.arms]]
    grey = {index for index, metric in enumerate(metrics, start=1) if summary.at_chance(metric)}
    at_chance = ", ".join(metrics[index - 1] for index in sorted(grey))
    return ResultTable(
        "All metrics",
        ["arm", *metrics],
        rows,
        "Mean over seeds, ± one standard error from the choice of seeds."
        + (
            f" Grey: the untouched model is at chance there, so differences say nothing ({at_chance})." if grey else ""
        ),
        grey,
    )


def _cost(result: TrialsResult) -> ResultTable:
    rows, rate = [], result.config["train"]["learning_rate"]
    for entry in result.arms:
        name, plan = entry["arm"]["name"], entry["plan"]
        runs = result.runs_of(name)
        costs = [run["cost"] for run in runs]
        speeds = [cost["tokens_per_second"] for cost in costs if cost["tokens_per_second"]]
        rows.append(
            [
                name,
                "adapters" if plan is None else _layers(entry["arm"], plan, runs),
                f"{entry['arm'].get('learning_rate') or rate:g}",
                f"{_trainable(entry, costs) / 1e6:.2f} M",
                "" if entry["off_by"] is None else f"{entry['off_by']:+.1%}",
                f"{sum(speeds) / len(speeds):.0f}" if speeds else "",
                _most(costs, "peak_memory_bytes", 2**20),
                _most(costs, "optimizer_bytes", 2**20),
                _most(costs, "flops", 1e12),
            ]
        )
    chosen = any(entry["plan"] and entry["plan"]["patterns"] for entry in result.arms)
    by_name = " By name: what the arm's patterns match trains, and what its options ask for." if chosen else ""
    return ResultTable(
        "Cost",
        ["arm", "layers", "learning rate", "trainable", "off by", "tokens/s", "peak MiB", "optimizer MiB", "TFLOP"],
        rows,
        f"On {result.machine}. Trainable is the mean over steps and seeds; off by is how far the first plan's are from "
        "those that were to be matched, of the draw that is furthest off where each seed draws layers. Tokens/s is the mean "
        "over seeds, and says as much of what else the machine did. Of the seeds, the largest peak, optimizer and FLOPs. "
        "Peak memory is of the whole process where there is no accelerator. FLOPs are those of training, by arithmetic: "
        "what a strategy that changes measures on the way is in neither FLOPs nor tokens/s." + by_name,
    )


def _accuracies(summary: Summary) -> list[str]:
    return [metric for metric in summary.metrics if metric.endswith(("/acc", "/accuracy"))]


def _layers(arm: dict[str, Any], plan: dict[str, Any], runs: list[dict[str, Any]]) -> str:
    config = ArmConfig(**arm)
    if (every := config.changes_every) is not None:
        layers = f"{len(plan['trained_layers'])} at first, {_changes(every, runs)}"
    elif config.is_drawn:
        layers = f"{len(plan['trained_layers'])} drawn for each seed"
    else:
        layers = compact_ranges(plan["trained_layers"])
    # Many layers and no embedding, or few layers and the embedding, may be as many parameters.
    trained = f"{layers}, embeddings" if plan["train_embeddings"] else layers
    return f"{trained} (by name)" if plan["patterns"] else trained


def _changes(every: int, runs: list[dict[str, Any]]) -> str:
    """How often the runs did change what trains, which an option cannot tell; without runs, how often they may."""
    counts = [run["allocations"] - 1 for run in runs]
    if not counts:
        return f"may change every {every} steps"
    low, high = min(counts), max(counts)
    if high == 0:
        return "never changed"
    if low < high:
        return f"changed {low} to {high} times"
    return "changed once" if low == 1 else f"changed {low} times"


def _trainable(entry: dict[str, Any], costs: list[dict[str, Any]]) -> float:
    """What the runs have trained, once there are some: the mean over steps and seeds."""
    if not costs:
        return entry["trainable_parameters"]
    return sum(cost["trainable_parameters"] for cost in costs) / len(costs)


def _seeds_caveat(result: TrialsResult) -> str:
    if len(result.config["seeds"]) > 1:
        return ""
    return " There is one seed: the intervals are of items only, and another seed may say otherwise."


def _difference(estimate: SeedEstimate | None) -> list[str]:
    if estimate is None:
        return ["no data", "", ""]
    interval = "" if estimate.low is None else f" [{estimate.low:+.4f}, {estimate.high:+.4f}]"
    return [f"{estimate.value:+.4f}{interval}", _error(estimate.item_stderr), _error(estimate.seed_stderr)]


def _mean(mean: MetricMean | None) -> str:
    return "" if mean is None else _plain(mean.mean) + _pm(mean.seed_stderr)


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _error(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"


def _pm(value: float | None) -> str:
    return "" if value is None else f" ± {value:.4f}"


def _most(costs: list[dict[str, Any]], name: str, unit: float) -> str:
    values = [cost[name] for cost in costs if cost[name] is not None]
    if not values:
        return ""
    most = max(values) / unit
    return f"{most:.4g}" if most < 1000 else f"{most:.0f}"  # and never 1.002e+04
