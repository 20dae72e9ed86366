"""Heals a hybrid on text files: stage 1, stage 2, and a record of what they did."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
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
from ...logs import get_logger
from ...modeling import EMBEDDINGS, HEAD, NORM
from ...trials.data import Blocks, count_blocks, write_blocks
from ...trials.fingerprint import content_hash, fingerprint
from ..build import build_hybrid
from ..donors import Donor, open_donor
from ..folder import unfinished
from ..provenance import HYBRID_FILE, RECIPE_FILE, Healing, HybridRecord, Origin
from ..recipe import HybridRecipe
from ..remote import known_to_transformers
from ..safetensors_io import StoredTensor
from ..weights import Digests
from .config import HealingConfig
from .trainers import DonorDistillationTrainer, MixerAlignmentTrainer


Stage = Literal["alignment", "distillation"]

# One block in so many is not trained on, up to so many in all.
_HELD_OUT, _MOST_HELD_OUT = 16, 64
_KEY_FILE = "key.txt"
_HEALED, _CHANGED = "Its new token mixers were healed on", "Changed by healing, and no longer the donor's:"

logger = get_logger(__name__)


def heal_hybrid(
    folder: str | Path,
    files: list[str | Path],
    out_dir: str | Path,
    config: HealingConfig | None = None,
    *,
    donor: str | Path | None = None,
) -> HybridRecord:
    """Heals a hybrid on text, and writes the result into its own folder.

    Called again after an interruption, it goes on from the last checkpoint, which lies beside `out_dir` until the end; with
    another hybrid, text or setting it begins anew. Several processes (`torchrun`) share each step.

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
        if processes.is_main_process:
            tokenizer = AutoTokenizer.from_pretrained(folder)
            write_blocks(map(str, files), tokenizer, config.sequence_length, blocks, place="files")
            _clear_if_of_another(work, _key(record, config, donor, blocks), blocks)
        teacher = Path(donor) if donor is not None else _donor(record, work / "donor")

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


def _key(record: HybridRecord, config: HealingConfig, donor: str | Path | None, blocks: Path) -> str:
    """What a healing is of: checkpoints with another key are those of another healing."""
    settings = asdict(config)
    del settings["save_steps"]  # how often it is saved changes nothing in the result
    teacher = str(Path(donor).absolute()) if donor is not None and Path(donor).exists() else donor
    return fingerprint([record.model_dump(mode="json"), settings, str(teacher), content_hash(blocks)])


def _clear_if_of_another(work: Path, key: str, blocks: Path) -> None:
    """Removes what an interrupted healing left, unless it was this one."""
    place = work / _KEY_FILE
    if place.is_file() and place.read_text(encoding="utf-8") == key:
        return
    left = [path for path in work.iterdir() if path != blocks]
    if left:
        logger.warning(f"{work} was left by a healing of something else, or with other settings: it begins anew.")
    for path in left:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    write_atomically(place, key.encode())


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
    old, new = _digests(before), _digests(after)
    for layer in record.layers:
        changed = old[layer.layer] != new[layer.layer]
        verified = (
            f"before healing: {layer.verified}" if changed and "healing" not in layer.verified else layer.verified
        )
        layers.append(layer.model_copy(update={"sha256": new[layer.layer], "verified": verified}))
    origins = {part: getattr(record, part) for part in (EMBEDDINGS, NORM, HEAD) if getattr(record, part) is not None}
    update: dict[str, Origin] = {
        part: origin.model_copy(update={"sha256": new[part]}) for part, origin in origins.items()
    }
    notes = _notes(record, [part for part in origins if old[part] != new[part]], healings)
    return record.model_copy(update={"layers": layers, "healings": healings, "notes": notes, **update})


def _notes(record: HybridRecord, changed: Sequence[str], healings: Sequence[Healing]) -> list[str]:
    """What to know of a healed model; `changed` are the parts outside the layers that this healing changed."""
    stale = ("untrained", _HEALED, _CHANGED)
    notes = [note for note in record.notes if not any(part in note for part in stale)]
    earlier = next((note.removeprefix(_CHANGED) for note in record.notes if note.startswith(_CHANGED)), "")
    parts = [part for part in (EMBEDDINGS, NORM, HEAD) if part in changed or part in earlier]
    if parts:
        notes.append(f"{_CHANGED} {', '.join(parts)}.")
    tokens = sum(healing.tokens for healing in healings)
    return [*notes, f"{_HEALED} {tokens:,} tokens."]


def _digests(folder: Path) -> dict[int | str, str]:
    """SHA-256 of each layer of a model, of its embeddings, norm and head, as the record has them."""
    model = Donor(str(folder), folder)
    parts: dict[int | str, list[StoredTensor]] = {part: model.outside(part) for part in (EMBEDDINGS, NORM, HEAD)}
    parts |= {index: list(model.layer_tensors(index).values()) for index in range(model.parts.num_layers)}
    digests = Digests()
    for file in sorted({tensor.file for tensors in parts.values() for tensor in tensors}):
        with digests.following(file) as take:
            for tensors in parts.values():
                for tensor in tensors:
                    if tensor.file == file:
                        take(tensor)
    return {part: digests.of(tensor.name for tensor in tensors) for part, tensors in parts.items()}
