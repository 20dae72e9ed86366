"""One rank of a run under DeepSpeed ZeRO on CPUs: train_deepspeed.py OUTPUT_DIR STAGE; OUTPUT_DIR holds the model.

Leaves what it saw in OUTPUT_DIR/zero<stage>-rank<N>.json.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import LlamaForCausalLM, TrainingArguments

from hf_layertracer import LayerTracerConfig, LayerTracerTrainer


def main(output_dir: Path, stage: int) -> None:
    args = TrainingArguments(
        output_dir=str(output_dir / f"zero{stage}"), max_steps=3, per_device_train_batch_size=2, learning_rate=1e-2,
        save_strategy="steps", save_steps=2, logging_strategy="no", report_to="none", disable_tqdm=True, bf16=False,
        dataloader_pin_memory=False, accelerator_config={"use_configured_state": True},
        deepspeed={
            "zero_optimization": {"stage": stage, "stage3_gather_16bit_weights_on_model_save": True},
            "zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False, "train_batch_size": "auto",
            "train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto",
        },
    )  # fmt: skip
    ids = torch.randint(3, 80, (16, 12), generator=torch.Generator().manual_seed(7)).tolist()
    trainer = LayerTracerTrainer(
        model=LlamaForCausalLM.from_pretrained(output_dir / "model"),
        args=args,
        train_dataset=Dataset.from_dict({"input_ids": ids, "labels": ids}),
        layertracer_config=LayerTracerConfig(num_probes=4, repeats=2, diagnose_after=True),
    )
    trainer.train()
    report = trainer.layertracer_report
    parameter = next(trainer.model.parameters())
    seen = {
        "engine": type(trainer.model_wrapped).__name__,
        "world_size": args.world_size,
        "sharded": parameter.numel() == 0,
        "plan": report.plan.model_dump(),
        "diagnoses": [diagnosis.step for diagnosis in report.diagnoses],
        "sensitivities": [diagnosis.sensitivity.mean for diagnosis in report.diagnoses],
        "notes": report.notes,
        "steps": report.training.steps,
        "trainable": report.training.trainable_parameters,
        "tokens": report.training.tokens,
    }
    place = output_dir / f"zero{stage}-rank{os.environ['RANK']}.json"
    place.write_text(json.dumps(seen))


if __name__ == "__main__":
    torch.set_num_threads(1)
    # accelerate finds no backend on a machine without accelerators: it is told one.
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    PartialState(backend="gloo")
    main(Path(sys.argv[1]), int(sys.argv[2]))
    torch.distributed.destroy_process_group()
