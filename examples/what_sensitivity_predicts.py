"""Which measurement of a layer predicts what the model loses with it?

The standard of importance is plain: leave one layer out and see by how much the loss on held-out text grows. This script
ranks a model's layers by it and by everything that a diagnosis measures, and says how well the ranks agree, and how stable
each rank is over halves of the probes, over seeds and over mask ratios.

    python what_sensitivity_predicts.py HuggingFaceTB/SmolLM2-135M-Instruct --out results.json
    python what_sensitivity_predicts.py --table results.json

Every finished part is saved at once, and a second call goes on where the first one stopped. Several models can share a file.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import hf_layertracer
from hf_layertracer import DiagnosisConfig, diagnose, load_probes
from hf_layertracer.diagnosis.statistics import rank_correlation


BLOCK = 256  # tokens of held-out text in one pass
GOLD = "loss increase"
NO_MODULES = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo"}
RATIOS = (0.1, 0.5)  # mask ratios beside the default
RESAMPLES = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="model id or folder")
    parser.add_argument("--out", type=Path, default=Path("what_sensitivity_predicts.json"), help="file of the results")
    parser.add_argument(
        "--text", type=Path, help="held-out text; by default the documentation of Python's own library"
    )
    parser.add_argument("--tokens", type=int, default=4096, help="tokens of held-out text")
    parser.add_argument("--probes", type=int, default=48, help="how many of the package's probes")
    parser.add_argument("--repeats", type=int, default=4, help="masks per probe")
    parser.add_argument("--table", type=Path, help="only print the table of a file of results")
    args = parser.parse_args()
    if args.table:
        print(table(json.loads(args.table.read_text(encoding="utf-8"))))
        return
    if args.model is None:
        parser.error("name a model, or a file with --table")
    study(args)
    print(table(json.loads(args.out.read_text(encoding="utf-8"))))


# -- measuring -------------------------------------------------------------------------------------------------------


def study(args: argparse.Namespace) -> None:
    """Measures what is not yet in the file."""
    results = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
    settings = {
        "tokens": args.tokens,
        "text": args.text.name if args.text else "documentation of Python's standard library",
        "probes": args.probes,
        "repeats": args.repeats,
        "versions": {"hf_layertracer": hf_layertracer.__version__, "torch": torch.__version__},
    }
    own = results.setdefault(Path(args.model).name, {"settings": settings, "diagnoses": {}, "losses": {}})
    if own["settings"] != settings:
        raise SystemExit(f"{args.out} holds results of {args.model} with other settings: {own['settings']}")
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    probes = load_probes(max_probes=args.probes)
    masks = {f"mask {ratio}": {"perturbation": "mask", "mask_ratio": ratio} for ratio in RATIOS}
    plans = {"mask, another seed": {"perturbation": "mask", "diagnosis_seed": 1}, **masks}

    def measure(name: str, **options: Any) -> None:
        if name not in own["diagnoses"]:
            config = DiagnosisConfig(repeats=args.repeats, **options)
            own["diagnoses"][name] = summary(diagnose(model, probes, tokenizer=tokenizer, config=config))
            save(args.out, results)

    measure("all", perturbation="skip,mask,mixer,noise")
    layers = model.get_submodule(own["diagnoses"]["all"]["layers_path"])
    documents = [args.text.read_text(encoding="utf-8")] if args.text else standard_library_docs()
    blocks = token_blocks(documents, tokenizer, max(1, args.tokens // BLOCK))
    if len(blocks) < 2:
        raise SystemExit(f"The held-out text is too short: it has {len(blocks)} blocks of {BLOCK} tokens.")
    for skipped in [None, *range(len(layers))]:
        if str(skipped) not in own["losses"]:
            own["losses"][str(skipped)] = losses(model, layers, skipped, blocks)
            save(args.out, results)
            print(f"without layer {skipped}: {np.mean(own['losses'][str(skipped)]):.3f} nats a token", flush=True)
    for name, options in plans.items():
        measure(name, **options)


def standard_library_docs() -> list[str]:
    """The documentation strings of each module of Python's own library: English prose that every reader has."""
    root, documents = Path(sysconfig.get_paths()["stdlib"]), []
    for path in sorted(root.rglob("*.py")):
        if NO_MODULES & set(path.relative_to(root).parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError):
            continue  # templates, and files in old encodings
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        strings = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)]
        documents.append("\n\n".join(string for string in strings if string))
    return [document for document in documents if len(document) >= 400]


def token_blocks(documents: list[str], tokenizer: Any, count: int) -> list[list[int]]:
    """A seeded sample of blocks of equal length, none of which crosses the end of a document."""
    blocks = []
    for document in documents:
        ids = tokenizer(document, verbose=False)["input_ids"]
        blocks += [ids[start : start + BLOCK] for start in range(0, len(ids) - BLOCK + 1, BLOCK)]
    return [blocks[index] for index in np.random.default_rng(0).permutation(len(blocks))[:count]]


def summary(report: hf_layertracer.LayerTracerReport) -> dict[str, Any]:
    """What the tables need of a report."""
    diagnosis = report.first
    return {
        "layers_path": report.model.layers_path,
        "layers": report.num_layers,
        "block influence": diagnosis.block_influence,
        "context": diagnosis.context.delta if diagnosis.context else None,
        "sensitivities": {name: found.mean for name, found in diagnosis.sensitivities.items()},
        "stability": {name: found.rank_stability for name, found in diagnosis.sensitivities.items()},
        "notes": report.notes,
    }


@torch.no_grad()
def losses(
    model: torch.nn.Module, layers: torch.nn.ModuleList, skipped: int | None, blocks: list[list[int]]
) -> list[float]:
    """The mean loss of each block of text, with one layer handing on what it was given."""

    def unchanged(_: torch.nn.Module, args: tuple, kwargs: dict, output: Any) -> Any:
        before = args[0] if args else kwargs["hidden_states"]
        return (before, *output[1:]) if isinstance(output, tuple) else before

    hook = None if skipped is None else layers[skipped].register_forward_hook(unchanged, with_kwargs=True)
    try:
        rows = [torch.tensor([block]) for block in blocks]
        return [float(model(input_ids=row, labels=row, use_cache=False).loss) for row in rows]
    finally:
        if hook is not None:
            hook.remove()


def save(path: Path, results: dict[str, Any]) -> None:
    """Writes the results so that no crash leaves half of them."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(results, indent=1), encoding="utf-8")
    os.replace(temporary, path)


# -- tables ----------------------------------------------------------------------------------------------------------


def series(own: dict[str, Any]) -> dict[str, list[float]]:
    """Every measurement of a model's layers, by name."""
    first = own["diagnoses"]["all"]
    found = {name: first["sensitivities"][name] for name in ("skip", "mixer", "mask", "noise")}
    found |= {"block influence": first["block influence"]}
    return found | ({"context": first["context"]} if first["context"] else {})


def gold(own: dict[str, Any]) -> np.ndarray:
    """Loss increase by block of text and layer."""
    whole = np.array(own["losses"]["None"])
    return np.array([np.array(own["losses"][str(layer)]) - whole for layer in range(len(own["losses"]) - 1)]).T


def table(results: dict[str, Any]) -> str:
    """Everything in a file of results, as Markdown."""
    done = {name: own for name, own in results.items() if len(own["losses"]) > own["diagnoses"]["all"]["layers"]}
    parts = []
    for name, own in done.items():
        settings, increase = own["settings"], gold(own)
        lines = [
            f"## {name}",
            "",
            f"{increase.shape[1]} layers; {settings['probes']} probes with {settings['repeats']} draws each; "
            f"{settings['tokens']} tokens of held-out text ({settings['text']}). Rank correlations over layers, with 95 % "
            "bootstrap intervals over layers in brackets.",
            "",
            "| measurement | with the loss increase | between halves of the probes |",
            "|---|---|---|",
        ]
        for measure, values in series(own).items():
            stability = own["diagnoses"]["all"]["stability"].get(measure)
            stable = "-" if stability is None else f"{stability:.2f}"
            lines.append(f"| {measure} | {correlation(values, increase.mean(0))} | {stable} |")
        half = rank_correlation(increase[::2].mean(0), increase[1::2].mean(0))
        lines += [f"| {GOLD} itself | | {half:.2f} (halves of the text) |", "", *agreement(own), ""]
        parts.append("\n".join(lines))
    return "\n".join(parts)


def correlation(values: list[float], standard: np.ndarray) -> str:
    """A rank correlation with its bootstrap interval over layers."""
    rng = np.random.default_rng(0)
    picks = rng.integers(len(values), size=(RESAMPLES, len(values)))
    drawn = [rank_correlation(np.array(values)[pick], standard[pick]) for pick in picks]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{rank_correlation(np.array(values), standard):.2f} ({low:.2f} to {high:.2f})"


def agreement(own: dict[str, Any]) -> list[str]:
    """How the measurements agree with each other."""
    mask = own["diagnoses"]["all"]["sensitivities"]["mask"]
    found = {"skip": series(own)["skip"], "noise": series(own)["noise"]}
    found |= {name: own["diagnoses"][name]["sensitivities"]["mask"] for name in own["diagnoses"] if name != "all"}
    said = ", ".join(
        f"{rank_correlation(np.array(mask), np.array(values)):.2f} ({name})" for name, values in found.items()
    )
    return [f"Mask sensitivity at the default ratio agrees with others by {said}."]


if __name__ == "__main__":
    main()
