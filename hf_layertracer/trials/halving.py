"""Successive halving: all arms short, the better half longer, until one is left. Ends with a plan file."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ..errors import LayerTracerError
from .arms import ArmConfig
from .config import UNTOUCHED, TrialsConfig
from .folder import TrialFolder, read_json, write_json
from .results import TrialsResult
from .run import run_trials
from .summary import Summary


HALVING_FILE, PLAN_FILE = "halving.json", "plan.json"


class HalvingResult(BaseModel):
    """What successive halving came to.

    Args:
        winner (`str`): The arm that is left.
        verdict (`str`): How sure that is, in words.
        plan (`dict[str, Any]`, *optional*):
            The [`LayerPlan`] of the winner, or of the best arm that has one; where each
            seed drew layers, its reason says which draw it is.
        planned_by (`str`, *optional*): The arm that the plan is of.
        rounds (`list[dict[str, Any]]`):
            For each round its `tokens` a run, its `folder`, its `arms` with `name`, `score`, `stderr` and `kept`, and under
            `failed` the arms that left because a run of theirs failed, with the cause.
    """

    winner: str
    verdict: str
    plan: dict[str, Any] | None
    planned_by: str | None
    rounds: list[dict[str, Any]]

    @classmethod
    def load(cls, directory: str | Path) -> HalvingResult | None:
        """Reads the result of [`run_halving`], if there is one in a folder."""
        values = read_json(Path(directory) / HALVING_FILE)
        return None if values is None else cls(**values)


def run_halving(config: TrialsConfig, out_dir: str | Path, total_tokens: int | None = None) -> HalvingResult:
    """Spends a token budget on finding the best arm: each round costs the same, and half of the arms leave after it.

    Arms are ranked by `objective`. Each run of a round is a whole training with its own schedule, not the
    continuation of a shorter one. Every round is a trial in its own folder, so an interrupted call goes on.

    Args:
        config ([`TrialsConfig`]): The arms and the objective; `train.tokens` is not used where `total_tokens` is given.
        out_dir (`str` or `Path`): Folder for `round-1`, `round-2`, ..., `halving.json` and `plan.json`.
        total_tokens (`int`, *optional*):
            Tokens of all runs of all rounds; by default as many as one trial of the config would take.

    Returns:
        [`HalvingResult`]: The winner, its plan and the rounds.

    Raises:
        LayerTracerError: There is no objective or the model is at chance on it, the budget is below one step for each arm,
            or no arm could be ranked.

    Example:

    ```python
    from hf_layertracer import LayerTracerConfig, LayerTracerTrainer, TrialsConfig
    from hf_layertracer.trials.halving import run_halving

    result = run_halving(TrialsConfig.from_file("trials.yaml"), "halving-out", total_tokens=5_000_000)
    trainer = LayerTracerTrainer(..., layertracer_config=LayerTracerConfig(plan="halving-out/plan.json"))
    ```
    """
    if config.objective is None:
        raise LayerTracerError(
            "objective: successive halving ranks arms by it: add objective: with w_learn and w_forget."
        )
    out_dir, seeds = Path(out_dir), len(config.seeds)
    total = total_tokens or config.train.tokens * len(config.arms) * seeds
    sizes = _sizes(len(config.arms))
    rounds: list[dict[str, Any]] = []
    ranking: list[str] = []
    result = None
    for number, size in enumerate(sizes, start=1):
        tokens = _whole_steps(config, total // (len(sizes) * size * seeds), size)
        folder = TrialFolder(out_dir / f"round-{number}")
        values = config.model_dump()
        values["train"]["tokens"] = tokens
        if result is not None:
            _take_over(TrialFolder(out_dir / f"round-{number - 1}"), folder)
            # Ratios that were matched stay what they are when the arm that they were matched to has left.
            arms = {entry["arm"]["name"]: entry["arm"] for entry in result.arms}
            values |= {"arms": [arms[name] for name in ranking[:size]], "match": "none"}
        result = run_trials(TrialsConfig(**values), folder.path)
        summary = Summary(result)
        if (metric := summary.objective_at_chance()) is not None:
            raise LayerTracerError(
                f"objective: the untouched model is at chance on {metric}, so ranking arms by it would rank noise. Choose "
                "another metric, or text under evaluate."
            )
        failed = {
            row.rpartition("-seed")[0]: f"{row}: {result.failures.get(row, 'it is not finished')}"
            for row in reversed(result.missing)
            if row != UNTOUCHED
        }
        ranking = [arm for arm in summary.ranking() if arm not in failed]
        if not ranking:
            raise LayerTracerError(f"No arm of {folder.path} could be ranked: {_first(result.failures)}")
        kept = sizes[number] if number < len(sizes) else 1
        places = _places(summary, ranking, kept)
        rounds.append({"folder": folder.path.name, "tokens": tokens, "arms": places, "failed": failed})
    planned_by, plan = _best_plan(result, ranking)
    outcome = HalvingResult(
        winner=ranking[0], verdict=_verdict(summary, ranking), plan=plan, planned_by=planned_by, rounds=rounds
    )
    if plan is not None:
        write_json(out_dir / PLAN_FILE, plan)
    write_json(out_dir / HALVING_FILE, outcome.model_dump())
    return outcome


def _sizes(arms: int) -> list[int]:
    """How many arms run in each round: 6, 3, 2."""
    sizes = [arms]
    while sizes[-1] > 2:
        sizes.append(math.ceil(sizes[-1] / 2))
    return sizes


def _whole_steps(config: TrialsConfig, tokens: int, arms: int) -> int:
    step = config.train.batch_size * config.train.sequence_length
    if tokens < step:
        raise LayerTracerError(
            f"The total token budget leaves {tokens} tokens for each run of a round with {arms} arms, below one step of "
            f"{step}. Raise it, or leave arms or seeds out."
        )
    return tokens - tokens % step


def _take_over(before: TrialFolder, folder: TrialFolder) -> None:
    """Token blocks, diagnosis and the untouched model's evaluation do not depend on the budget."""
    if folder.path.exists():
        return
    untouched = before.unit(UNTOUCHED).path
    partial = folder.path.with_name(f".{folder.path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for source in (before.blocks.parent, before.diagnosis, untouched):
            shutil.copytree(source, partial / source.relative_to(before.path))
        partial.rename(folder.path)
    except OSError as error:
        raise LayerTracerError(f"Could not write {folder.path}: {error.strerror or error}.") from error


def _places(summary: Summary, ranking: list[str], kept: int) -> list[dict[str, Any]]:
    places = []
    for place, arm in enumerate(ranking):
        score = summary.score(arm)
        places.append({"name": arm, "score": score.value, "stderr": score.stderr, "kept": place < kept})
    return places


def _verdict(summary: Summary, ranking: list[str]) -> str:
    if len(ranking) < 2:
        return f"{ranking[0]} is the only arm that was left."
    first, second = ranking[:2]
    lead = summary.lead(first, second)
    if lead is None:
        return f"{first} comes before {second}; no seed of both was evaluated on the same items."
    if lead.low is None:
        return f"{first} comes before {second} by {lead.value:.4f}, whose error is not known."
    interval = f"{lead.value:+.4f}, 95 % interval {lead.low:+.4f} to {lead.high:+.4f}"
    if not lead.excludes_zero:
        return (
            f"Between {first} and {second} no difference was found in the last round ({interval}): take the one that costs "
            "less."
        )
    return f"{first} is ahead of {second} ({interval})."


def _best_plan(result: TrialsResult, ranking: list[str]) -> tuple[str | None, dict[str, Any] | None]:
    for arm in ranking:
        for run in result.runs_of(arm):
            # One plan says nothing of an arm that changed what trains.
            if run["plan"] is not None and run["allocations"] == 1:
                return arm, run["plan"] | {"reason": run["plan"]["reason"] + _which_draw(result, arm, run["seed"])}
    return None, None


def _which_draw(result: TrialsResult, arm: str, seed: int) -> str:
    """Of an arm that drew layers for each seed, a plan is one draw, and its score is the mean over all."""
    (settings,) = [ArmConfig(**entry["arm"]) for entry in result.arms if entry["arm"]["name"] == arm]
    others = [str(run["seed"]) for run in result.runs_of(arm) if run["seed"] != seed]
    if not settings.is_drawn or not others:
        return ""
    return (
        f" Of the trial's draws, this is that of seed {seed}: the other seeds ({', '.join(others)}) drew their own, and the "
        "score is the mean over all."
    )


def _first(failures: dict[str, str]) -> str:
    return next((f"{name}: {cause}" for name, cause in failures.items()), "there is no data for the objective")
