"""Chooses the text of a corpus that is worth training on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names


if TYPE_CHECKING:
    from .config import SelectionConfig
    from .select import SelectionRecord, select_data

# The command line reads the settings alone; the rest needs torch and datasets.
__getattr__ = lazy_names(__name__, {"config": ["SelectionConfig"], "select": ["SelectionRecord", "select_data"]})
__all__ = ["SelectionConfig", "SelectionRecord", "select_data"]
