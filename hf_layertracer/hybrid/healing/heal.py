"""Heals a hybrid on text files: stage 1, stage 2, and a record of what they did."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Literal

import torch
from accelerate import PartialState
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import strtobool

from ...distributed import from_main_process
from ...errors import LayerTracerError
from ...files import write_atomically
from ...trials.data import Blocks, count_blocks, write_blocks
from ..build import build_hybrid
from ..donors import open_donor
from ..folder import unfinished
from ..mappings.base import LAYERS
from ..provenance import HYBRID_FILE, RECIPE_FILE, Healing, HybridRecord
from ..recipe import HybridRecipe
from ..remote import known_to_transformers
from ..safetensors_io import read_header
from ..weights import Digests
from .config import HealingConfig
from .trainers import DonorDistillationTrainer, MixerAlignmentTrainer


Stage = Literal["alignment", "distillation"]

# One block in so many is not trained on, up to so many in all.
_HELD_OUT, _MOST_HELD_OUT = 16, 64


def heal_hybrid(
    folder: str | Path,
    files: list[str | Path],
    out_dir: str | Path,
    config: HealingConfig | None = None,
    *,
    donor: str | Path | None = None,
) -> HybridRecord:
    """Heals a hybrid on text, and writes the result into its own folder.

    Called again after an interruption, it goes on from the last checkpoint, which lies beside `out_dir` until the end.
    Several processes (`torchrun`) share each step.

    Args:
        folder (`str` or `Path`): What [`build_hybrid`] made.
        files (`list`): Text files.
        out_dir (`str` or `Path`): Folder for the healed model; it must not exist, or be empty.
        config ([`HealingConfig`], *optional*): Steps and learning rates.
        donor (`str` or `Path`, *optional*): The model before its mixers were replaced; by default its recipe is built
            without them.

    Returns:
        [`HybridRecord`]: The record of the healed model.

    Raises:
        LayerTracerError: The folder holds no hybrid with new mixers, the files no text, or the launch shards the model.
    """
    config = config or HealingConfig()
    if strtobool(os.environ.get("ACCELERATE_USE_FSDP", "false")):
        raise LayerTracerError(
            "Healing on text files runs under DDP (`torchrun`), where each process holds the whole model. For FSDP use "
            "MixerAlignmentTrainer and DonorDistillationTrainer in a script of your own."
        )
    folder, out = Path(folder).absolute(), Path(out_dir).absolute()
    record = HybridRecord.load(folder)
    if not any(layer.mixer for layer in record.layers):
        raise LayerTracerError("No token mixer of this model is new: there is nothing to heal.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise LayerTracerError(f"{out} exists and is not an empty folder. Name another.")
    work = out.parent / f".{out.name}.healing"
    # Without an accelerator, processes find each other only if they are told to run on the CPU.
    processes = PartialState(cpu=not torch.accelerator.is_available())
    blocks = work / "blocks.npy"
    with processes.main_process_first():
        work.mkdir(parents=True, exist_ok=True)
        teacher = Path(donor) if donor is not None else _donor(record, work / "donor")
        if processes.is_main_process:
            tokenizer = AutoTokenizer.from_pretrained(folder)
            write_blocks(map(str, files), tokenizer, config.sequence_length, blocks)

    set_seed(config.healing_seed)
    known_to_transformers()
    model = AutoModelForCausalLM.from_pretrained(folder)
    model_of_donor = AutoModelForCausalLM.from_pretrained(teacher)
    healings = list(record.healings)
    stages: dict[Stage, int] = {"alignment": config.steps, "distillation": config.distill_steps}
    for stage, steps in stages.items():
        if steps:
            healings.append(_stage(stage, steps, model, model_of_donor, blocks, work / stage, config))
    if processes.is_main_process:
        _write(record, folder, model, healings, out)
        shutil.rmtree(work)
    processes.wait_for_everyone()
    return HybridRecord.load(out)


def _write(record: HybridRecord, folder: Path, model: PreTrainedModel, healings: list[Healing], out: Path) -> None:
    """Writes the healed model, and its record."""
    with unfinished(out) as target:
        model.requires_grad_(True)
        model.save_pretrained(target)
        for file in folder.iterdir():
            if file.is_file() and not (target / file.name).exists() and not file.name.startswith("model"):
                shutil.copyfile(file, target / file.name)
        healed = _healed(record, folder, target, healings)
        (target / HYBRID_FILE).write_text(healed.model_dump_json(indent=1) + "\n", encoding="utf-8")
        HybridRecipe.from_dict(record.recipe).save(target / RECIPE_FILE)


def _donor(record: HybridRecord, place: Path) -> Path:
    """The model before its mixers were replaced, from the hybrid's own recipe."""
    recipe = HybridRecipe.from_dict(record.recipe).model_copy(update={"mixers": ()})
    if recipe.model_fields_set <= {"base", "mixers", "reason", "seed"}:
        return open_donor(recipe.base).whole()
    if not place.exists():
        build_hybrid(recipe, place)
    return place


def _stage(
    name: Stage,
    steps: int,
    model: PreTrainedModel,
    donor: PreTrainedModel,
    blocks: Path,
    work: Path,
    config: HealingConfig,
) -> Healing:
    """Trains one stage, from its last checkpoint if there is one."""
    rate = config.learning_rate if name == "alignment" else config.distill_learning_rate
    arguments = TrainingArguments(
        str(work),
        max_steps=steps,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        learning_rate=rate,
        lr_scheduler_type="cosine",
        warmup_steps=steps // 20,
        save_steps=config.save_steps,
        save_total_limit=1,
        logging_steps=max(1, steps // 50),
        report_to="none",
        use_cpu=not torch.accelerator.is_available(),
        dataloader_pin_memory=torch.accelerator.is_available(),
        seed=config.healing_seed,
    )
    every = Blocks(blocks, count_blocks(blocks), config.healing_seed)
    held_out = max(1, min(_MOST_HELD_OUT, len(every) // _HELD_OUT))
    if len(every) <= held_out:
        raise LayerTracerError("The files hold one block of text only: one is held out, and none is left to train on.")
    settings = {
        "model": model,
        "donor": donor,
        "args": arguments,
        "train_dataset": torch.utils.data.Subset(every, range(held_out, len(every))),
        "eval_dataset": torch.utils.data.Subset(every, range(held_out)),
    }
    if name == "alignment":
        trainer = MixerAlignmentTrainer(**settings)
    else:
        model.requires_grad_(True)
        trainer = DonorDistillationTrainer(**settings, mixer_learning_rate=config.mixer_learning_rate)
    checkpoint = get_last_checkpoint(str(work)) if work.is_dir() else None
    before_file = work / "loss_before.txt"
    if not from_main_process(before_file.exists()):
        before = trainer.evaluate()["eval_loss"]
        if trainer.is_world_process_zero():
            write_atomically(before_file, repr(before).encode())
        PartialState().wait_for_everyone()
    trainer.train(resume_from_checkpoint=checkpoint)
    return Healing(
        stage=name,
        steps=steps,
        tokens=steps * config.batch_size * config.sequence_length * arguments.world_size,
        learning_rate=rate,
        loss_before=float(before_file.read_text()),
        loss_after=trainer.evaluate()["eval_loss"],
    )


def _healed(record: HybridRecord, before: Path, after: Path, healings: list[Healing]) -> HybridRecord:
    """The record of a healed model: what changed is no longer what was verified."""
    layers = []
    old, new = _digests(before, len(record.layers)), _digests(after, len(record.layers))
    for layer in record.layers:
        changed = old[layer.layer] != new[layer.layer]
        verified = (
            f"before healing: {layer.verified}" if changed and "healing" not in layer.verified else layer.verified
        )
        layers.append(layer.model_copy(update={"sha256": new[layer.layer], "verified": verified}))
    tokens = sum(healing.tokens for healing in healings)
    notes = [note for note in record.notes if "untrained" not in note]
    notes.append(f"Its new token mixers were healed on {tokens:,} tokens.")
    return record.model_copy(update={"layers": layers, "healings": healings, "notes": notes})


def _digests(folder: Path, depth: int) -> list[str]:
    """SHA-256 of each layer of a model in a native class, as the record has it."""
    digests = Digests()
    names: list[list[str]] = [[] for _ in range(depth)]
    for file in sorted(folder.glob("*.safetensors")):
        tensors = read_header(file)
        with digests.following(file) as take:
            for tensor in tensors.values():
                take(tensor)
        for name in tensors:
            if name.startswith(LAYERS):
                names[int(name.removeprefix(LAYERS).split(".")[0])].append(name)
    return [digests.of(own) for own in names]
