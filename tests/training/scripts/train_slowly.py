"""Trains a tiny model with a checkpoint every other step, slowly enough to be killed: train_slowly.py OUTPUT_DIR [lisa]."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback, TrainingArguments

from hf_layertracer import LayerTracerConfig, LayerTracerTrainer


CONFIG = LayerTracerConfig(strategy="explicit", train_layers="1,3", num_probes=4, repeats=2)
CHANGING = LayerTracerConfig(strategy="lisa", change_steps=3, thaw_warmup_steps=2, num_probes=4, repeats=2)


class Slowly(TrainerCallback):
    def on_step_begin(self, *_: Any, **__: Any) -> None:
        time.sleep(0.3)


def make_trainer(
    output_dir: Path, config: LayerTracerConfig = CONFIG, logging: int = 0, **arguments: Any
) -> LayerTracerTrainer:
    torch.set_num_threads(1)
    torch.manual_seed(1)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=80, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=2, attention_dropout=0.1, pad_token_id=0, bos_token_id=None, eos_token_id=2,
        )
    )  # fmt: skip
    ids = torch.randint(3, 80, (16, 12)).tolist()
    args = TrainingArguments(
        output_dir=str(output_dir), max_steps=12, per_device_train_batch_size=2, learning_rate=1e-2,
        save_strategy="steps", save_steps=2,
        logging_strategy="steps" if logging else "no", logging_steps=1, report_to="none", use_cpu=True, disable_tqdm=True,
        dataloader_pin_memory=False,
    )  # fmt: skip
    dataset = Dataset.from_dict({"input_ids": ids, "labels": ids})
    return LayerTracerTrainer(model=model, args=args, train_dataset=dataset, layertracer_config=config, **arguments)


if __name__ == "__main__":
    chosen = CHANGING if "lisa" in sys.argv else CONFIG
    make_trainer(Path(sys.argv[1]), chosen, int(chosen is CHANGING), callbacks=[Slowly()]).train()
