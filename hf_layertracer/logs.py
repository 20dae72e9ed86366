"""Loggers that follow `transformers.utils.logging`: its verbosity, its handler, its quiet default."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from transformers.utils import logging as transformers_logging


if TYPE_CHECKING:

    class Logger(logging.Logger):
        """A logger with what transformers adds."""

        def warning_once(self, message: str) -> None: ...


def get_logger(name: str) -> Logger:
    """A logger below transformers' own, as only those follow `set_verbosity_*`.

    Args:
        name (`str`): The module's `__name__`.

    Returns:
        `logging.Logger`: The logger, with the `warning_once` of transformers.
    """
    return transformers_logging.get_logger(f"transformers.{name}")
