"""The main job on a real model: diagnose, train with the deep layers frozen and without, compare."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer

from ..config import DiagnosisConfig
from ..diagnosis.diagnose import diagnose
from ..errors import LayerTracerError
from ..files import write_atomically
from ..report import LayerTracerReport
from .arm import ArmSettings
from .corpus import standard_library_docs, token_blocks
from .model import MODEL_ID, demo_model


STRATEGIES = ("freeze-deep", "full")
_BLOCK = 128
_HELD_OUT_EVERY = 8  # every eighth module of the library is never trained on


def run_demo(
    output: Path,
    *,
    steps: int = 40,
    batch_size: int = 4,
    held_out_blocks: int = 48,
    learning_rate: float = 1e-4,
    estimator: str = "exact",
    repeats: int | None = None,
    diagnose_steps: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Runs the demo and leaves `layertracer_report.json`, its picture, `README.md` and `results.json` behind.

    Args:
        output (`Path`): Folder for everything.
        steps (`int`, *optional*, defaults to `40`): Optimizer steps of each run.
        batch_size (`int`, *optional*, defaults to `4`): Blocks of 128 tokens a step.
        held_out_blocks (`int`, *optional*, defaults to `48`): Blocks to evaluate on.
        learning_rate (`float`, *optional*, defaults to `1e-4`): Peak learning rate.
        estimator (`str`, *optional*, defaults to `"exact"`): `"exact"` or `"gradient"`.
        repeats (`int`, *optional*): Random masks per probe.
        diagnose_steps (`int`, *optional*): Diagnose again every so many steps.
        seed (`int`, *optional*, defaults to `0`): Seed of everything random.

    Returns:
        `dict[str, Any]`: What `results.json` holds: the settings and each run's numbers.

    Raises:
        LayerTracerError: The model is not installed, a run failed or the folder cannot be written to.
    """
    folder = demo_model()
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    documents = standard_library_docs()
    training = [document for index, document in enumerate(documents) if index % _HELD_OUT_EVERY]
    held_out = documents[::_HELD_OUT_EVERY]
    blocks = {
        "train": token_blocks(training, tokenizer, _BLOCK, steps * batch_size, seed),
        "held_out": token_blocks(held_out, tokenizer, _BLOCK, held_out_blocks, seed),
    }
    report = diagnose(
        model, tokenizer=tokenizer, config=DiagnosisConfig(estimator=estimator, repeats=repeats, diagnosis_seed=seed)
    )
    del model
    # A reader of the report wants to find the model; the weights are the packaged ones, which it must say.
    report.model.id = MODEL_ID
    report.notes.append("The weights were read from a GGUF file with 4 bits a weight.")
    report.save(output)
    numbers = []
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "blocks.json"
        data.write_text(json.dumps(blocks), encoding="utf-8")
        for strategy in STRATEGIES:
            settings = ArmSettings(
                model=str(folder),
                data=str(data),
                report=str(output),
                output=str(output / strategy),
                strategy=strategy,
                steps=steps,
                batch_size=batch_size,
                learning_rate=learning_rate,
                diagnosis={
                    "diagnose_steps": diagnose_steps,
                    "estimator": estimator,
                    "repeats": repeats,
                    "diagnosis_seed": seed,
                },
                seed=seed,
            )
            numbers.append(_run_in_own_process(settings))
    results = {
        "model": report.model.id,
        "corpus": "documentation strings of the Python standard library",
        "held_out_modules": len(held_out),
        "settings": {
            "steps": steps,
            "batch_size": batch_size,
            "block_tokens": _BLOCK,
            "held_out_blocks": len(blocks["held_out"]),
            "learning_rate": learning_rate,
            "seed": seed,
        },
        "runs": numbers,
    }
    # The report on top is that of the run with the plan; each run's own lies in its folder.
    LayerTracerReport.load(output / STRATEGIES[0]).save(output)
    write_atomically(output / "results.json", (json.dumps(results, indent=1) + "\n").encode())
    return results


def _run_in_own_process(settings: ArmSettings) -> dict[str, Any]:
    command = [sys.executable, "-m", f"{__package__}.arm", json.dumps(asdict(settings))]
    # The Trainer prints its logs on standard output; the demo's own output is the table.
    finished = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    if finished.returncode:
        raise LayerTracerError(f"The run {settings.strategy!r} failed with exit status {finished.returncode}.")
    return json.loads((Path(settings.output) / "numbers.json").read_text(encoding="utf-8"))
