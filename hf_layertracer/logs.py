"""Loggers that follow `transformers.utils.logging`: its verbosity, its handler, its quiet default."""

from __future__ import annotations

import logging

from transformers.utils import logging as transformers_logging


def get_logger(name: str) -> logging.Logger:
    """A logger below transformers' own, as only those follow `set_verbosity_*`.

    Args:
        name (`str`): The module's `__name__`.

    Returns:
        `logging.Logger`: The logger.
    """
    return transformers_logging.get_logger(f"transformers.{name}")
