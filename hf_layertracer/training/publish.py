"""The report in the card that a trainer uploads."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from ..errors import LayerTracerError
from ..files import write_atomically
from ..hub.card import model_card
from ..hub.privacy import public_report
from ..logs import get_logger
from ..modeling.facts import public_model_id
from ..report import CARD_FILE, LayerTracerReport
from ..report.card_section import put_section
from ..report.markdown import report_section


logger = get_logger(__name__)


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
    text = _without_local_model(text, getattr(getattr(model, "config", None), "name_or_path", None) or "")
    try:
        text = model_card(text, report, repo_id)
    except LayerTracerError as error:
        logger.error(f"The card has the report's section, but neither its tag nor its results. {error}")
        text = put_section(text, report_section(report))
    write_atomically(path, text.encode())


def save_report(report: LayerTracerReport, directory: str | Path, *, only_json: bool = False) -> None:
    """Saves what may leave the machine of a report; a disk that is full ends no training.

    Args:
        report ([`LayerTracerReport`]): The report.
        directory (`str` or `Path`): Where to.
        only_json (`bool`, *optional*, defaults to `False`): Neither picture nor card.
    """
    public = public_report(report)
    try:
        if only_json:
            public.save_json(directory)
        else:
            public.save_or_keep(directory)
    except (LayerTracerError, OSError) as error:  # the picture's library has its own files to write
        logger.error(f"The LayerTracer report was not saved. {error}")


def _without_local_model(text: str, name_or_path: str) -> str:
    """A card that does not tell where on this machine the model that was trained lay; the Hub would not take that."""
    is_local = os.path.isabs(name_or_path) or ("/" in name_or_path and os.path.isdir(name_or_path))
    local = name_or_path if is_local else ""
    text = re.sub(rf"^base_model: ('{{2}}|{re.escape(local)})\n", "", text, count=1, flags=re.MULTILINE)
    return text.replace(local, public_model_id(local)) if local else text
