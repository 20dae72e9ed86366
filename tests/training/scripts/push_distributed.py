"""One rank of a run under DDP that pushes: push_distributed.py OUTPUT_DIR, which holds the model."""

from __future__ import annotations

import sys

import torch
from datasets import Dataset
from transformers import LlamaForCausalLM, Trainer, TrainingArguments

from hf_layertracer import LayerTracerCallback, LayerTracerConfig, LayerTracerTrainer, Probe


def main(folder: str, name: str) -> None:
    args = TrainingArguments(
        output_dir=f"{folder}/{name}", max_steps=3, per_device_train_batch_size=2, save_strategy="steps", save_steps=2,
        logging_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True, dataloader_pin_memory=False,
        ddp_backend="gloo", bf16=False, push_to_hub=True, hub_model_id=f"alice/{name}", hub_strategy="every_save",
        hub_always_push=True,
    )  # fmt: skip
    ids = torch.randint(3, 80, (16, 12), generator=torch.Generator().manual_seed(7)).tolist()
    settings = {
        "model": LlamaForCausalLM.from_pretrained(f"{folder}/model"),
        "args": args,
        "train_dataset": Dataset.from_dict({"input_ids": ids, "labels": ids}),
    }
    config = LayerTracerConfig(num_probes=4, repeats=2)
    if name == "trainer":
        trainer = LayerTracerTrainer(layertracer_config=config, **settings)
    else:
        callback = LayerTracerCallback(config, [Probe((5, 6, 7), 8 + i) for i in range(4)])
        trainer = Trainer(callbacks=[callback], **settings)
        callback.attach(trainer)
    trainer.train()
    trainer.push_to_hub()


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in ("trainer", "callback"):
        main(sys.argv[1], name)
    torch.distributed.destroy_process_group()
