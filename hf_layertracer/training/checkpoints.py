"""The checkpoint that a run goes on from."""

from __future__ import annotations

import json
import re
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers import TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint

from ..logs import get_logger


logger = get_logger(__name__)

# What holds a model's weights, or an index of the files that do.
_WEIGHTS = ("*.safetensors", "*.bin", "*.index.json", "global_step*", "pytorch_model_fsdp*", "*.pt")


def checkpoint_of(args: TrainingArguments, state: TrainerState) -> Path:
    """The checkpoint of a trainer's step, whether or not there is one.

    Args:
        args ([`~transformers.TrainingArguments`]): The arguments.
        state ([`~transformers.TrainerState`]): The state.

    Returns:
        `Path`: Its folder; during a hyperparameter search that lies in the folder of the trial, the last one written to.
    """
    name = f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
    if state.is_hyper_param_search:
        found = sorted(Path(args.output_dir).glob(f"*/{name}"), key=lambda path: path.stat().st_mtime)
        if found:
            return found[-1]
    return Path(args.output_dir) / name


def kept_step(args: TrainingArguments, state: TrainerState) -> int:
    """The step of the model that a run leaves: of the best checkpoint, where the trainer has put that back at the end.

    Args:
        args ([`~transformers.TrainingArguments`]): The arguments.
        state ([`~transformers.TrainerState`]): The state, when training has ended.

    Returns:
        `int`: The step.
    """
    if not args.load_best_model_at_end or state.best_model_checkpoint is None:
        return state.global_step
    # The best step itself may have left no checkpoint: then the trainer puts back an earlier one.
    numbered = re.fullmatch(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)", Path(state.best_model_checkpoint).name)
    return int(numbered[1]) if numbered is not None else state.best_global_step or state.global_step


def newest_complete_checkpoint(output_dir: str | Path) -> str | None:
    """The newest checkpoint that was written to its end.

    The trainer's state is written last, so a process that was killed while it saved leaves none, or half of one.

    Args:
        output_dir (`str` or `Path`): The run's directory.

    Returns:
        `str`: Its path, or `None` where there is none. Those that were passed over are named in a warning.
    """
    found = {}
    for path in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        numbered = re.fullmatch(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)", path.name)
        if numbered is not None and path.is_dir():
            found[int(numbered[1])] = path
    passed_over: list[str] = []
    for step in sorted(found, reverse=True):
        if is_complete(found[step]):
            if passed_over:
                names = ", ".join(passed_over)
                logger.warning(f"Going on from {found[step].name}: {names} was not written to its end.")
            return str(found[step])
        passed_over.append(found[step].name)
    return None


def is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end.

    Args:
        checkpoint (`Path`): Its folder.

    Returns:
        `bool`: Whether weights and a whole trainer state are there.
    """
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    for file in checkpoint.glob("*.safetensors"):
        try:
            with safe_open(file, framework="pt"):
                pass
        except (OSError, SafetensorError):  # shorter than its header says
            return False
    return any(any(checkpoint.glob(pattern)) for pattern in _WEIGHTS)


def last_checkpoint(resume_from_checkpoint: str | bool | None, output_dir: str) -> str | None:
    """The checkpoint that `Trainer.train(resume_from_checkpoint=...)` means."""
    if resume_from_checkpoint is True:
        return get_last_checkpoint(output_dir)
    return resume_from_checkpoint or None
