"""One rank of both healing stages, under DDP and under FSDP2; leaves the losses and the trained mixers behind."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from datasets import Dataset
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, TrainingArguments

from hf_layertracer.hybrid.healing.trainers import DonorDistillationTrainer, MixerAlignmentTrainer


FSDP2 = {
    "fsdp": True,
    "fsdp_config": {
        "fsdp_version": 2,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "transformer_layer_cls_to_wrap": ["GraniteMoeHybridDecoderLayer"],
    },
}
STAGES = {"alignment": MixerAlignmentTrainer, "distillation": DonorDistillationTrainer}


def main(place: Path, kind: str, stage: str) -> None:
    args = TrainingArguments(
        str(place / f"{kind}-{stage}"), max_steps=3, per_device_train_batch_size=2, learning_rate=1e-2,
        save_strategy="no", logging_steps=1, report_to="none", use_cpu=True, disable_tqdm=True,
        dataloader_pin_memory=False, ddp_backend="gloo", **(FSDP2 if kind == "fsdp2" else {}),
    )  # fmt: skip
    if kind == "fsdp2":
        os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
        # accelerate shards on accelerators only, and on CPUs falls back to DDP without a word; its code runs there too.
        assert args.device.type == "cpu"  # asking for it sets the processes up
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    ids = torch.randint(5, 300, (12, 12), generator=torch.Generator().manual_seed(7)).tolist()
    trainer = STAGES[stage](
        model=AutoModelForCausalLM.from_pretrained(place / "hybrid"),
        donor=AutoModelForCausalLM.from_pretrained(place / "donor"),
        args=args,
        train_dataset=Dataset.from_dict({"input_ids": ids, "labels": ids}),
    )
    trainer.train()
    own = dict(trainer.model.named_parameters())
    sharded = any(isinstance(parameter, DTensor) for parameter in own.values())
    whole = {name: p.full_tensor() if isinstance(p, DTensor) else p for name, p in own.items() if "mamba" in name}
    if trainer.is_world_process_zero():
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        mixers = {name: parameter.detach().clone() for name, parameter in whole.items()}
        torch.save({"losses": losses, "mixers": mixers, "sharded": sharded}, place / f"{kind}-{stage}.pt")


if __name__ == "__main__":
    for kind in ("ddp", "fsdp2"):
        for stage in STAGES:
            main(Path(sys.argv[1]), kind, stage)
    torch.distributed.destroy_process_group()
