"""One rank of several runs: train_distributed.py OUTPUT_DIR, which holds the model.

Under DDP, under FSDP2 sharded by transformers, under FSDP2 sharded by accelerate; whole and resumed, with a strategy
that changes what trains, and with a frozen prefix that runs without a graph or not at all; by a callback's events alone.
Leaves what it saw in OUTPUT_DIR/<kind>-rank<N>.json, and the weights before and after in OUTPUT_DIR/<kind>-rank<N>.pt.
With DIE_IN_DIAGNOSIS set, the second rank is gone as soon as it is to diagnose.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import DistributedType, PartialState
from datasets import Dataset
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import LlamaForCausalLM, Trainer, TrainingArguments
from transformers.distributed import DistributedConfig

from hf_layertracer import LayerTracerCallback, LayerTracerConfig, LayerTracerError, LayerTracerTrainer
from hf_layertracer.report import report
from hf_layertracer.training import measuring


FSDP2 = {
    "fsdp": True,
    "fsdp_config": {
        "fsdp_version": 2,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"],
        "cpu_ram_efficient_loading": True,
        "state_dict_type": "FULL_STATE_DICT",
    },
}


def main(output_dir: Path, kind: str, strategy: str = "freeze-deep", resume: bool = False) -> None:
    steps = 3 if strategy == "freeze-deep" else 6
    name = kind if strategy == "freeze-deep" else f"{kind}-{strategy}"
    args = TrainingArguments(
        output_dir=str(output_dir / f"{name}{'-resumed' * resume}"), max_steps=steps,
        per_device_train_batch_size=2, learning_rate=1e-2,
        save_strategy="steps", save_steps=2, logging_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True,
        dataloader_pin_memory=False, ddp_backend="gloo", bf16=False, save_only_model=kind == "sharded",
        **(FSDP2 if kind == "fsdp2" else {}),
    )  # fmt: skip
    if kind == "fsdp2":
        # What `accelerate launch --use_fsdp --fsdp_cpu_ram_efficient_loading true` sets.
        os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}
        # accelerate shards on accelerators only, and on CPUs falls back to DDP without a word; its code runs there too.
        assert args.device.type == "cpu"  # asking for it sets the processes up
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    sharding = {"distributed_config": DistributedConfig(fsdp_size=2)} if kind == "sharded" else {}
    model = LlamaForCausalLM.from_pretrained(output_dir / "model", **sharding)
    before = weights(model)
    ids = torch.randint(3, 80, (16, 12), generator=torch.Generator().manual_seed(7)).tolist()
    changing = {"change_steps": 1, "thaw_warmup_steps": 1} if strategy != "freeze-deep" else {"diagnose_steps": 2}
    config = LayerTracerConfig(strategy=strategy, num_probes=4, repeats=2, **changing)
    dataset = Dataset.from_dict({"input_ids": ids, "labels": ids})
    trainer = LayerTracerTrainer(model=model, args=args, train_dataset=dataset, layertracer_config=config)
    with writes() as written:
        trainer.train(resume_from_checkpoint=str(output_dir / name / "checkpoint-2") if resume else None)
    result = trainer.layertracer_report
    seen = {
        "wrapper": type(trainer.model_wrapped).__name__,
        "local": sum(
            p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in trainer.model.parameters()
        ),
        "plan": result.plan.model_dump(),
        "plans": [[record.step, record.plan.trained_layers] for record in result.plans],
        "sensitivity": result.first.sensitivity.mean,
        "diagnoses": [d.model_dump(exclude={"durations", "memory"}) for d in result.diagnoses],
        "tokens": result.training.tokens,
        "trainable": sorted(clean(name) for name, p in trainer.model.named_parameters() if p.requires_grad),
        "optimizer_parameters": sum(len(group["params"]) for group in trainer.optimizer.param_groups),
        "written": written,
    }
    place = output_dir / f"{name}{'-resumed' * resume}-rank{os.environ['RANK']}"
    place.with_suffix(".json").write_text(json.dumps(seen))
    torch.save({"before": before, "after": weights(trainer.model)}, place.with_suffix(".pt"))


def frozen_prefix(output_dir: Path, way: str) -> None:
    """Six steps, one and a half epochs, of freeze-shallow, with activation checkpointing or the prefix on disk."""
    checkpointing = {"use_reentrant": way == "reentrant"}
    args = TrainingArguments(
        output_dir=str(output_dir / f"prefix-{way}"), max_steps=6, per_device_train_batch_size=2, learning_rate=1e-2,
        save_strategy="no", logging_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True,
        dataloader_pin_memory=False, ddp_backend="gloo", bf16=False, fsdp=way == "plain",
        activation_checkpointing=way in ("checkpointing", "reentrant"),
        activation_checkpointing_kwargs=checkpointing,
    )  # fmt: skip
    model = LlamaForCausalLM.from_pretrained(output_dir / "model", attention_dropout=0.0)
    runs = [0]

    def count(module: nn.Module, *_: object) -> None:
        runs[0] += module.training

    model.model.layers[0].mlp.register_forward_hook(count)
    ids = torch.randint(3, 80, (16, 12), generator=torch.Generator().manual_seed(7)).tolist()
    trainer = LayerTracerTrainer(
        model=model,
        args=args,
        train_dataset=Dataset.from_dict({"input_ids": ids, "labels": ids}),
        layertracer_config=LayerTracerConfig(
            strategy="freeze-shallow",
            num_probes=4,
            repeats=2,
            prefix_cache=str(output_dir / "cache") if way == "cache" else None,
        ),
    )
    trainer.train()
    place = output_dir / f"prefix-{way}-rank{os.environ['RANK']}"
    seen = {"wrapper": type(trainer.model_wrapped).__name__, "runs": runs[0]}
    place.with_suffix(".json").write_text(json.dumps(seen))
    torch.save({"after": weights(trainer.model)}, place.with_suffix(".pt"))


def events_alone(output_dir: Path) -> None:
    """A callback that is attached to no trainer, under DDP."""
    args = TrainingArguments(
        output_dir=str(output_dir / "alone"), max_steps=3, save_strategy="no", logging_strategy="no", report_to="none",
        use_cpu=True, disable_tqdm=True, dataloader_pin_memory=False, ddp_backend="gloo", bf16=False,
    )  # fmt: skip
    model = LlamaForCausalLM.from_pretrained(output_dir / "model")
    data = Dataset.from_dict({"input_ids": [[5, 6, 7]] * 8, "labels": [[5, 6, 7]] * 8})
    try:
        Trainer(model=model, args=args, train_dataset=data, callbacks=[LayerTracerCallback()]).train()
    except LayerTracerError as error:
        (output_dir / f"alone-rank{os.environ['RANK']}.txt").write_text(str(error))


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of each whole parameter."""
    found = {}
    for name, parameter in model.named_parameters():
        whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
        found[clean(name)] = whole.detach().clone()
    return found


def clean(name: str) -> str:
    return name.removeprefix("module.")


@contextmanager
def writes() -> Iterator[list[str]]:
    """The files that this process writes for the report."""
    written: list[str] = []
    original = report.write_atomically

    def write(path: Path, content: bytes) -> None:
        written.append(path.name)
        original(path, content)

    report.write_atomically = write
    yield written
    report.write_atomically = original


if __name__ == "__main__":
    torch.set_num_threads(1)
    if os.environ.get("DIE_IN_DIAGNOSIS") and os.environ["RANK"] == "1":
        measuring.diagnose = lambda *_, **__: os._exit(7)
    place = Path(sys.argv[1])
    for kind in ("ddp", "sharded", "fsdp2"):
        main(place, kind)
        if kind != "sharded":  # transformers saves no optimizer of a model that it has sharded
            for resume in (False, True):
                main(place, kind, "grass", resume)
        if kind == "ddp":
            main(place, kind, resume=True)
            for way in ("plain", "checkpointing", "reentrant", "cache"):
                frozen_prefix(place, way)
            events_alone(place)
    torch.distributed.destroy_process_group()
