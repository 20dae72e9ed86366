"""Writes the page of results.

Beside a trial NAME, the folders NAME_learning_rates (its sweep) and NAME_equal_flops are taken along where they are.

python page.py results/smollm2_laws results/smollm2_python_docs --reading reading.md > ../../docs/results.md
"""

from __future__ import annotations

import argparse
import re
from datetime import timedelta
from pathlib import Path
from statistics import fmean

from hf_layertracer.trials import TrialsResult
from hf_layertracer.trials.summary import Summary, verdict


HEAD = """\
# What the trials have measured so far

Does it pay to train the shallow layers and freeze the deep ones, as arXiv 2605.11416 claims? These tables are all that has
been measured for this page, finished or not. They are made by `python page.py results/...` in `examples/trials/`, whose
README says how to get models and texts, from runs of `layertracer trials run`.

The budgets are small: thousands of tokens, not billions. What holds here need not hold after a longer training."""

SWEEP = "_learning_rates"
EQUAL_FLOPS = "freeze-deep, equal FLOPs"
QUESTIONS = (
    ("Does freeze-deep beat full training?", "freeze-deep", "full"),
    ("Does it with as much arithmetic, that is more tokens?", EQUAL_FLOPS, "full"),
    ("Does freeze-deep beat its opposite?", "freeze-deep", "freeze-shallow"),
    ("Was the diagnosis worth it: sensitivity against random layers?", "sensitivity", "random"),
    ("Do the most sensitive layers keep up with full training?", "sensitivity", "full"),
    ("Does LISA beat one random draw?", "lisa", "random"),
    ("Does a boundary that moves beat one that stays?", "adaptive", "freeze-deep"),
    ("Do layers beat adapters (LoRA)?", "freeze-deep", "lora"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", help="folders of layertracer trials run")
    parser.add_argument("--reading", type=Path, help="what to make of them, in words: a file that follows the head")
    settings = parser.parse_args()
    print(HEAD)
    if settings.reading:
        print(f"\n{settings.reading.read_text(encoding='utf-8').rstrip()}")
    for folder in settings.results:
        result = TrialsResult.load(folder)
        tokens = [run["cost"] for run in result.units if run["cost"]["tokens_per_second"]]
        seconds = sum(cost["tokens"] / cost["tokens_per_second"] for cost in tokens)
        print(f"\n## {folder.name}\n\n`layertracer trials run {folder.name}.yaml --out results/{folder.name}`\n")
        print(f"{len(tokens)} trained runs on {result.machine}, {timedelta(seconds=round(seconds))} of training.")
        longer = folder.with_name(f"{folder.name}_equal_flops")
        if rows := answers(with_arm(result, TrialsResult.load(longer)) if longer.is_dir() else result):
            heads = [
                "",
                "| question | learned | kept | million trained | TFLOP | seeds |",
                "|---|---|---|---|---|---|",
            ]
            print("\n".join([*heads, *rows]))
            print("\nWith one seed, an answer is of these items only: another seed may say otherwise.")
        # Its own title goes, and the other headings stand below ours.
        print(re.sub(r"^## ", "### ", result.to_markdown().partition("\n")[2], flags=re.MULTILINE).rstrip())
        sweep = folder.with_name(f"{folder.name}{SWEEP}")
        if sweep.is_dir():
            print("\n".join(learning_rates(sweep)))


def learning_rates(folder: Path) -> list[str]:
    """The sweep of a trial: what each arm comes to by the objective at each rate, the best in bold."""
    result = TrialsResult.load(folder)
    summary = Summary(result)
    found: dict[str, dict[float, float | None]] = {}
    for entry in result.arms:
        arm, score = entry["arm"], summary.score(entry["arm"]["name"])
        found.setdefault(arm["strategy"], {})[arm["learning_rate"]] = None if score is None else score.value
    rates = sorted({rate for row in found.values() for rate in row})
    lines = [
        "\n### The sweep over learning rates\n",
        f"`layertracer trials run {folder.name}.yaml --out results/{folder.name}`: one seed, on text that the trial does",
        "not measure. Learned minus forgotten, in bits per byte; the trial takes the rate in bold.\n",
        f"| arm | {' | '.join(f'{rate:g}' for rate in rates)} |",
        f"|---|{'---|' * len(rates)}",
    ]
    for strategy, row in found.items():
        best = max((value for value in row.values() if value is not None), default=None)
        cells = ["" if (value := row.get(rate)) is None else f"{value:+.4f}" for rate in rates]
        cells = [
            f"**{cell}**" if cell and row.get(rate) == best else cell for rate, cell in zip(rates, cells, strict=True)
        ]
        lines.append(f"| {strategy} | {' | '.join(cells)} |")
    return lines


def with_arm(result: TrialsResult, longer: TrialsResult) -> TrialsResult:
    """A trial with the arm of another one, on the same items and with the same seeds, under a name of its own."""
    if longer.untouched["evaluation"] != result.untouched["evaluation"]:
        raise SystemExit("The untouched model differs in the two trials: other texts, or another way of computing.")
    arm = longer.arms[0]["arm"]["name"]
    entry = longer.arms[0] | {"arm": longer.arms[0]["arm"] | {"name": EQUAL_FLOPS}}
    units = [unit | {"arm": EQUAL_FLOPS} for unit in longer.runs_of(arm)]
    return result.model_copy(update={"arms": [*result.arms, entry], "units": [*result.units, *units]})


def answers(result: TrialsResult) -> list[str]:
    """What the runs say to each question, on learning and on forgetting, as rows of a table."""
    summary = Summary(result)
    rows = []
    for question, arm, other in QUESTIONS:
        if arm not in result.arm_names or other not in result.arm_names:
            continue
        cells = []
        for metric in (summary.objective.learn, summary.objective.forget):
            gain = summary.gain(arm, metric, other) if {arm, other} <= set(summary.arms) else None
            value = "" if gain is None else f" ({gain.value:+.4f})"
            cells.append(("not measured yet" if gain is None else verdict(gain, "yes", "no, it is worse")) + value)
        seeds = min(len(result.runs_of(arm)), len(result.runs_of(other)))
        costs = [[run["cost"] for run in result.runs_of(name)] for name in (arm, other)]
        for name, unit in (("trainable_parameters", 1e6), ("flops", 1e12)):
            cells.append(
                " : ".join(f"{fmean(cost[name] for cost in runs) / unit:.1f}" if runs else "" for runs in costs)
            )
        rows.append(f"| {question} | {' | '.join(cells)} | {seeds} |")
    return rows


if __name__ == "__main__":
    main()
