"""What a trainer uploads lies in its output directory: this gets report, picture and card ready there in time."""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback

from ..errors import LayerTracerError
from ..files import write_atomically
from ..hub.card import model_card
from ..hub.privacy import public_report
from ..hub.transport import explain
from ..logs import get_logger
from ..modeling.facts import public_model_id
from ..report import CARD_FILE, LayerTracerReport
from ..report.markdown import put_section, report_section


logger = get_logger(__name__)


def calling_trainer(callback: TrainerCallback) -> Trainer | None:
    """The trainer that has just called a callback.

    A callback is not told whose it is, and [`~transformers.Trainer.push_to_hub`] writes a new card after the last event
    before the upload: without the trainer, the report would have no place in that card.

    Args:
        callback (`TrainerCallback`): The callback that is being called.

    Returns:
        [`~transformers.Trainer`]: The trainer, or `None` where something else called.
    """
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, Trainer) and callback in caller.callback_handler.callbacks:
            return caller
        frame = frame.f_back
    return None


def write_card(directory: Path, report: LayerTracerReport, repo_id: str, model: Any) -> None:
    """Writes the report into the card of a directory: its section, its tag and its evaluation results.

    Args:
        directory (`Path`): The output directory, with or without a `README.md`.
        report ([`LayerTracerReport`]): The report.
        repo_id (`str`): The repository, or the name of the model.
        model (`nn.Module`): The model, which knows the path that it was loaded from.
    """
    path, report = directory / CARD_FILE, public_report(report)
    text = path.read_bytes().decode() if path.is_file() else ""
    text = _without_local_model(text, getattr(getattr(model, "config", None), "_name_or_path", ""))
    try:
        text = model_card(text, report, repo_id)
    except LayerTracerError as error:
        logger.error(f"The card has the report's section, but neither its tag nor its results. {error}")
        text = put_section(text, report_section(report))
    write_atomically(path, text.encode())


def is_uploading(trainer: Trainer | None) -> bool:
    """Whether files of the output directory are on their way to the Hub: they must not change until they are there."""
    push = getattr(trainer, "push_in_progress", None)
    return push is not None and not push.is_done()


def failed_upload(trainer: Trainer | None) -> str | None:
    """Why the last upload in the background failed, which the trainer itself does not say.

    Args:
        trainer ([`~transformers.Trainer`], *optional*): The trainer.

    Returns:
        `str`: One line, or `None` where none failed or all are under way.
    """
    push = getattr(trainer, "push_in_progress", None)
    for job in getattr(push, "jobs", None) or []:
        if job.done() and not job.cancelled() and job.exception() is not None:
            error = job.exception()
            return explain(
                error.__cause__ or error if isinstance(error, RuntimeError) else error, trainer.hub_model_id
            )
    return None


def _without_local_model(text: str, name_or_path: str) -> str:
    """A card that does not tell where on this machine the model that was trained lay; the Hub would not take that."""
    is_local = os.path.isabs(name_or_path) or ("/" in name_or_path and os.path.isdir(name_or_path))
    local = name_or_path if is_local else ""
    text = re.sub(rf"^base_model: ('{{2}}|{re.escape(local)})\n", "", text, count=1, flags=re.MULTILINE)
    return text.replace(local, public_model_id(local)) if local else text
