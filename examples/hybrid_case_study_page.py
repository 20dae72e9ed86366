"""Table, picture and page of the case study, from whatever units are there.

python hybrid_case_study_page.py study --page hybrid-case-study.md --reading words.md
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hf_layertracer.evaluation.statistics import accuracy, paired_difference_over_seeds
from hf_layertracer.report.palette import kind_colours
from hf_layertracer.text import compact_ranges


STAGES = ("before healing", "after stage 1", "after stage 2")
ARMS = ("shallow half", "deep half", "spread", "mask sensitivity", "mixer sensitivity")
COLUMNS = {
    "new/bits_per_byte": "bits per byte, held out",
    "old/bits_per_byte": "bits per byte, other text",
    "probes/accuracy": "probes",
    "blimp/acc": "BLiMP",
    "arc_easy/acc": "ARC-Easy",
    "piqa/acc": "PIQA",
}
Unit = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="the folder of hybrid_case_study.py")
    parser.add_argument("--page", type=Path, default=Path("hybrid-case-study.md"))
    parser.add_argument("--reading", type=Path, help="what to make of it, in words: a file that ends the page")
    settings = parser.parse_args()
    units = [json.loads(path.read_text()) for path in sorted((settings.study / "units").glob("*.json"))]
    picture = settings.page.with_suffix(".png")
    figure(units).savefig(picture)
    words = settings.reading.read_text(encoding="utf-8").strip() if settings.reading else ""
    settings.page.write_text(page(units, picture.name, words), encoding="utf-8")


def page(units: list[Unit], picture: str, words: str) -> str:
    """The page: what ran, the tables, the comparison of the halves, and a reading by hand if there is one."""
    whole = [unit for unit in units if unit["experiment"] == "whole"]
    parts = [
        "# Case study: which attention can go?",
        "Mamba2 replaces the attention of some layers of SmolLM2-135M-Instruct (30 layers), at the same number in different "
        "places. Made by `examples/hybrid_case_study.py` and `examples/hybrid_case_study_page.py`.",
        _what_ran(units),
        f"![Bits per byte by place of the new mixers]({picture})",
    ]
    for stage in STAGES:
        rows = [unit for unit in units if unit.get("stage") == stage]
        if rows:
            parts += [f"## {stage.capitalize()}", _table([*whole, *rows])]
    if halves := _halves(units):
        parts += ["## Shallow half minus deep half", halves]
    if donors := [unit for unit in units if unit["experiment"] == "donors"]:
        parts += ["## Two donors", _table([*whole, *donors])]
    if words:
        parts += ["## Reading", words]
    return "\n\n".join(parts) + "\n"


def _what_ran(units: list[Unit]) -> str:
    lines = ["| what | arms | seeds | units |", "|---|---|---|---|"]
    for name, chosen in {
        **{stage: [unit for unit in units if unit.get("stage") == stage] for stage in STAGES},
        "two donors": [unit for unit in units if unit["experiment"] == "donors"],
    }.items():
        arms = {(unit["arm"], unit.get("count")) for unit in chosen}
        seeds = sorted({unit["seed"] for unit in chosen if "seed" in unit})
        drawn = ", ".join(map(str, seeds)) or ("nothing is random" if chosen else "-")
        lines.append(f"| {name} | {len(arms)} | {drawn} | {len(chosen)} |")
    return "\n".join(lines)


def _table(units: list[Unit]) -> str:
    """One row for each arm: means over seeds; of accuracies, the 95 % interval over the questions of all seeds."""
    columns = [name for name in COLUMNS if all(name in unit["metrics"] for unit in units)]
    head = ["replaced", "layers", "seeds", *(COLUMNS[name] for name in columns)]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    groups: dict[tuple, list[Unit]] = {}
    for unit in units:
        groups.setdefault((unit.get("count", 0), unit.get("arm", "nothing")), []).append(unit)
    for (count, arm), same in sorted(groups.items(), key=lambda group: (group[0][0], _order(group[0][1]))):
        layers = compact_ranges(same[0]["layers"]) if "layers" in same[0] else "-"
        cells = [f"{count}, {arm}" if count else arm, layers, str(len(same))]
        lines.append(f"| {' | '.join([*cells, *(_value(name, same) for name in columns)])} |")
    return "\n".join(lines)


def _value(name: str, units: Sequence[Unit]) -> str:
    mean = sum(unit["metrics"][name] for unit in units) / len(units)
    if "bits" in name:
        return f"{mean:.3f}"
    correct = [[item["correct"] for item in _items(unit, name)] for unit in units]
    # Seeds answer the same questions: their number does not grow with the seeds.
    interval = accuracy([float(seeds[0]) for seeds in zip(*correct, strict=True)])
    return f"{mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def _items(unit: Unit, metric: str) -> list[dict[str, Any]]:
    return [item for item in unit["items"] if item["set"] == metric.split("/")[0]]


def _halves(units: list[Unit]) -> str:
    """New mixers in the shallow half, with the deep half whole, against the other way round: paired by item and seed."""
    lines = ["| stage | count | measure | shallow minus deep | 95 % interval | seeds |", "|---|---|---|---|---|---|"]
    mixers = [unit for unit in units if unit["experiment"] == "mixers"]
    for stage in STAGES:
        for count in sorted({unit["count"] for unit in mixers}):
            arms = {}
            for unit in mixers:
                if (unit["stage"], unit["count"]) == (stage, count):
                    arms.setdefault(unit["arm"], {})[unit.get("seed")] = unit
            seeds = sorted(arms.get(ARMS[0], {}).keys() & arms.get(ARMS[1], {}).keys(), key=str)
            for name in (name for name in COLUMNS if seeds and name in arms[ARMS[0]][seeds[0]]["metrics"]):
                key = "value" if "bits" in name else "correct"
                ours, theirs = (
                    [[float(item[key]) for item in _items(arms[arm][seed], name)] for seed in seeds]
                    for arm in ARMS[:2]
                )
                items = _items(arms[ARMS[0]][seeds[0]], name)
                weights = [item["bytes"] for item in items] if "bits" in name else None
                found = paired_difference_over_seeds(ours, theirs, weights=weights)
                one = found.low is None or found.high is None
                interval = "one item only" if one else f"[{found.low:+.3f}, {found.high:+.3f}]"
                lines.append(
                    f"| {stage} | {count} | {COLUMNS[name]} | {found.value:+.3f} | {interval} | {len(seeds)} |"
                )
    return "\n".join(lines) if len(lines) > 2 else ""


def figure(units: list[Unit]) -> Figure:
    """Bits per byte of the held-out text by stage, a line for each arm, a panel for each count."""
    mixers = [unit for unit in units if unit["experiment"] == "mixers"]
    counts = sorted({unit["count"] for unit in mixers})
    drawn = Figure(figsize=(4.5 * max(1, len(counts)), 3.8), dpi=100, layout="constrained")
    FigureCanvasAgg(drawn)
    colours = kind_colours(ARMS)
    whole = [unit for unit in units if unit["experiment"] == "whole"]
    for number, count in enumerate(counts):
        axes = drawn.add_subplot(1, len(counts), number + 1)
        for unit in whole:
            axes.axhline(unit["metrics"]["new/bits_per_byte"], color="0.5", linestyle=":", label="whole model")
        for arm in ARMS:
            points = []
            for place, stage in enumerate(STAGES):
                same = [u for u in mixers if (u["arm"], u["count"], u["stage"]) == (arm, count, stage)]
                points += [(place, unit["metrics"]["new/bits_per_byte"]) for unit in same]
            if points:
                means = {x: [y for at, y in points if at == x] for x, _ in points}
                axes.plot(list(means), [sum(y) / len(y) for y in means.values()], color=colours[arm], label=arm)
                axes.scatter(*zip(*points, strict=True), color=colours[arm], s=14)
        axes.set(title=f"{count} of 30 attentions replaced", ylabel="bits per byte, held out")
        axes.set_xticks(range(len(STAGES)), [stage.replace(" ", "\n", 1) for stage in STAGES])
        if number == 0:
            axes.legend(fontsize=7)
    return drawn


def _order(arm: str) -> int:
    return ARMS.index(arm) if arm in ARMS else -1


if __name__ == "__main__":
    main()
