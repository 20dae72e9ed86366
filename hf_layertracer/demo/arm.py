"""One training run of the demo, in a process of its own so that its peak memory is its own: `python -m ... SETTINGS`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments
from transformers.utils import logging

from ..diagnosis.score import score_probes
from ..files import write_atomically
from ..planning.config import LayerTracerConfig
from ..probes import builtin_probes
from ..training import LayerTracerTrainer


@dataclass(frozen=True)
class ArmSettings:
    """What one run needs to know.

    Args:
        model (`str`): Folder of the model.
        data (`str`): JSON file with the token blocks, `{"train": [...], "held_out": [...]}`.
        report (`str`): Folder of the diagnosis, which all runs share.
        output (`str`): Folder to write the run's report and `numbers.json` to.
        strategy (`str`): The strategy.
        steps (`int`): Optimizer steps.
        batch_size (`int`): Blocks a step.
        learning_rate (`float`): Peak learning rate.
        diagnosis (`dict[str, Any]`): Settings of [`LayerTracerConfig`] for later diagnoses, as the first was made.
        seed (`int`): Seed of the order of the data.
    """

    model: str
    data: str
    report: str
    output: str
    strategy: str
    steps: int
    batch_size: int
    learning_rate: float
    diagnosis: dict[str, Any]
    seed: int


def run_arm(settings: ArmSettings) -> None:
    """Trains the model once and writes what came of it.

    Args:
        settings ([`ArmSettings`]): The run.
    """
    tokenizer = AutoTokenizer.from_pretrained(settings.model)
    model = AutoModelForCausalLM.from_pretrained(settings.model)
    blocks = json.loads(Path(settings.data).read_text(encoding="utf-8"))
    datasets = {
        name: Dataset.from_dict({"input_ids": rows, "labels": rows, "attention_mask": [[1] * len(r) for r in rows]})
        for name, rows in blocks.items()
    }
    args = TrainingArguments(
        settings.output,
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=max(1, settings.steps // 10),
        lr_scheduler_type="cosine",
        eval_on_start=True,
        eval_strategy="steps",
        eval_steps=settings.steps,
        save_strategy="no",
        logging_steps=max(1, settings.steps // 5),
        report_to="none",
        dataloader_pin_memory=torch.accelerator.is_available(),
        seed=settings.seed,
    )
    probes = builtin_probes()
    before = score_probes(model, probes, tokenizer)
    trainer = LayerTracerTrainer(
        model=model,
        args=args,
        train_dataset=datasets["train"],
        eval_dataset=datasets["held_out"],
        processing_class=tokenizer,
        probes=probes,
        layertracer_config=LayerTracerConfig(strategy=settings.strategy, report=settings.report, **settings.diagnosis),
    )
    trainer.train()
    after = score_probes(model, probes, tokenizer)
    numbers = {
        "strategy": settings.strategy,
        "probes_before": asdict(before),
        "probes_after": asdict(after),
        "training": trainer.layertracer_report.training.model_dump(),
        "plan": trainer.layertracer_report.plan.model_dump(),
    }
    write_atomically(Path(settings.output) / "numbers.json", (json.dumps(numbers, indent=1) + "\n").encode())


if __name__ == "__main__":
    logging.set_verbosity_error()
    run_arm(ArmSettings(**json.loads(sys.argv[1])))
