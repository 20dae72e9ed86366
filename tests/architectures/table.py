"""The results as a document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers


CHECKS = ("lens", "sensitivity", "zero", "passes", "depth", "freeze", "training", "as found")
FULL, PARTIAL, REFUSED, NOT_BUILT, BROKEN = "full", "in part", "refused", "not built", "broken"
NOT_CAUSAL = "not causal"


def status(result: dict[str, Any]) -> str:
    """What a result amounts to: `"broken"` is a crash, or something that does not hold and that no report says."""
    if result.get("built", "ok") != "ok":
        return NOT_BUILT
    if result.get("not_causal"):
        return NOT_CAUSAL if result.get("refused") else BROKEN
    if result.get("refused"):
        return REFUSED
    checks = result["checks"]
    if all(checks.get(name) == "ok" for name in CHECKS):
        return FULL
    said = all(checks.get(name, "").startswith(("ok", "reported: ", "n/a: ")) for name in CHECKS)
    return PARTIAL if said else BROKEN


def counts(results: Sequence[dict[str, Any]]) -> dict[str, int]:
    """How many results there are of each status."""
    statuses = [status(result) for result in results]
    return {name: statuses.count(name) for name in (FULL, PARTIAL, REFUSED, BROKEN, NOT_CAUSAL, NOT_BUILT)}


def causal(number: dict[str, int]) -> int:
    """How many of the results are of causal language models that can be built, by their number of each status."""
    return sum(number.values()) - number[NOT_BUILT] - number[NOT_CAUSAL]


def document(results: Sequence[dict[str, Any]]) -> str:
    """docs/architectures.md."""
    number = counts(results)
    rows = [
        "| type | layers | kinds | lens | replay | long and deep | freeze | training step | works |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    rows += [_row(result) for result in sorted(results, key=lambda result: result["model_type"])]
    version = torch.__version__.split("+")[0]
    share, built = f"{number[FULL] / causal(number):.1%}", len(results) - number[NOT_BUILT]
    return f"""# Which models

Every model type that transformers {transformers.__version__} lists for causal language modelling, checked with
tiny random models (torch {version}, float32, on a CPU). `make test-architectures` writes this page; nothing in it is
written by hand.

Of {len(results)} types, {built} can be built from their configuration alone. {number[NOT_CAUSAL]} of these are no causal
language models when they are given token ids and nothing else, and are refused for that. **{number[FULL]} of the other
{causal(number)} work in full ({share})**, {number[PARTIAL]} in part (their report says what does not hold);
refused with a reason: {number[REFUSED]}; broken: {number[BROKEN]}.

What is checked of each type, against plain loops of forward hooks and whole passes that share no code with the package:

* **lens**: at every depth it is what a whole pass gives in which the last layer answers that depth's hidden state; at the
  last layer it is the model's own probability.
* **replay**: how Layer Sensitivity was measured: by running only the layers after the perturbed one (`replay`), or in
  whole passes. Either way it equals that of whole passes with a hook, for masks and for layers left out, and it is 0 for a
  perturbation that changes nothing.
* **long and deep**: a model of at least twelve layers, on a prompt of 44 tokens, longer than any of its windows, and on one
  of 4: the sensitivity is that of whole passes, each on a fresh copy, and no weight has changed. A long prompt has the
  same answer before and after a short one.
* **freeze**: a plan that trains one layer trains that layer's parameters, and no other parameter that text uses.
* **training step**: one step under `LayerTracerTrainer` changes no frozen bit, and all that received a gradient. Where
  a model's own loss needs more than text, the trainer is given one (`compute_loss_func`).
* Three diagnoses leave weights, buffers, modes, hooks, configuration and random state as they found them.

{chr(10).join(rows)}
"""


def _row(result: dict[str, Any]) -> str:
    name, state = f"`{result['model_type']}`", status(result)
    if state in (NOT_BUILT, NOT_CAUSAL, REFUSED):
        reason = result["built"] if state == NOT_BUILT else result["refused"]
        return f"| {name} | | | | | | | | {state}: {_cell(reason)} |"
    checks = result["checks"]
    kinds = list(dict.fromkeys(result.get("kinds", [])))
    cells = [
        name,
        f"{len(result.get('kinds', []))} in `{result.get('layers_path', '')}`",
        ", ".join(f"`{kind}`" for kind in kinds),
        _mark(checks.get("lens")),
        result.get("path", "") if not result.get("path_reason") else f"whole passes: {_cell(result['path_reason'])}",
        _mark(_first_wrong(checks, "passes", "depth")),
        _mark(checks.get("freeze")),
        _mark(checks.get("training")),
        state if state != BROKEN else f"broken: {_cell(str({k: v for k, v in checks.items() if v != 'ok'}))}",
    ]
    return f"| {' | '.join(cells)} |"


def _first_wrong(checks: dict[str, str], *names: str) -> str | None:
    found = [checks.get(name) for name in names]
    return next((check for check in found if check != "ok"), "ok")


def _mark(check: str | None) -> str:
    if check in (None, "ok"):
        return "yes" if check else ""
    return _cell("no: " + check.removeprefix("reported: ").removeprefix("n/a: "))


def _cell(text: str, limit: int = 160) -> str:
    line = " ".join(text.split()).replace("|", "\\|")
    return line if len(line) <= limit else line[: limit - 1] + "…"
