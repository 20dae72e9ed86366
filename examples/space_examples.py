"""Makes the reports that the Space ships with: two diagnoses, and one training run with the deep half frozen and in full.

python space_examples.py --gemma models/gemma-3-270m --out ../spaces/layertracer-viewer/examples
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments

from hf_layertracer import (
    DiagnosisConfig,
    LayerTracerConfig,
    LayerTracerReport,
    LayerTracerTrainer,
    diagnose,
    load_probes,
)
from hf_layertracer.demo.corpus import standard_library_docs, write_corpus
from hf_layertracer.demo.model import MODEL_ID, NOTE, demo_model
from hf_layertracer.trials.data import Blocks, write_blocks


REPEATS = 1  # masks for each probe and layer


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of SmolLM2-135M-Instruct; the demo's by default")
    parser.add_argument("--gemma", type=Path, help="folder of Gemma-3-270m; its report is left as it is without")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--probes", type=int, help="a sample of the package's probes for the diagnoses; all by default"
    )
    parser.add_argument("--run-probes", type=int, default=48, help="probes of the training runs, asked several times")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--diagnose-steps", type=int, default=20)
    return parser.parse_args()


def main() -> None:
    settings = arguments()
    smollm2 = settings.model or demo_model()
    keep(diagnosed(smollm2, settings.probes), MODEL_ID, settings.out / "smollm2-135m")
    for strategy in ("freeze-deep", "full"):
        keep(trained(smollm2, strategy, settings), MODEL_ID, settings.out / f"smollm2-135m-{strategy}")
    if settings.gemma:
        keep(diagnosed(settings.gemma, settings.probes), "google/gemma-3-270m", settings.out / "gemma-3-270m")


def diagnosed(folder: Path, count: int | None) -> LayerTracerReport:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    probes = load_probes(tokenizer=tokenizer, max_probes=count)
    return diagnose(model, probes, tokenizer=tokenizer, config=DiagnosisConfig(repeats=REPEATS))


def trained(folder: Path, strategy: str, settings: argparse.Namespace) -> LayerTracerReport:
    """The report of a run on the documentation strings of Python's standard library."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    probes = load_probes(tokenizer=tokenizer, max_probes=settings.run_probes)
    with tempfile.TemporaryDirectory() as place:
        text, _ = write_corpus(standard_library_docs(), Path(place))
        blocks = Path(place, "blocks.npy")
        write_blocks([str(text)], tokenizer, 128, blocks)
        args = TrainingArguments(
            str(Path(place, "run")),
            max_steps=settings.steps,
            per_device_train_batch_size=2,
            learning_rate=3e-4,
            lr_scheduler_type="cosine",
            warmup_steps=settings.steps // 10,
            bf16=True,
            use_cpu=not torch.accelerator.is_available(),
            dataloader_pin_memory=torch.accelerator.is_available(),
            logging_steps=5,
            save_strategy="no",
            report_to="none",
            seed=0,
        )
        trainer = LayerTracerTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
            args=args,
            train_dataset=Blocks(blocks, settings.steps * 2, seed=0),
            processing_class=tokenizer,
            probes=probes,
            layertracer_config=LayerTracerConfig(
                strategy=strategy, repeats=REPEATS, diagnose_steps=settings.diagnose_steps
            ),
        )
        trainer.train()
    return trainer.layertracer_report


def keep(report: LayerTracerReport, name: str, folder: Path) -> None:
    """Writes the report alone, under the model's public name: the page draws all else."""
    report.model.id = name
    report.notes.append(NOTE)
    report.save_json(folder)


if __name__ == "__main__":
    main()
