"""Progress of long work: a bar at a terminal or in a notebook, a line now and then in a pipe or a file."""

from __future__ import annotations

import sys
from typing import Any

from tqdm.auto import tqdm
from transformers.utils import logging

from .distributed import is_main_process


_LINE_EVERY = 10  # seconds
_COUNTED = "{desc}{percentage:.0f} % ({n_fmt} of {total_fmt} {unit}), {elapsed} passed, {remaining} left{postfix}"
_OPEN = "{desc}{elapsed} passed{postfix}"


def progress_bar(desc: str, *, total: int | None = None, unit: str = "it", initial: int = 0) -> tqdm:
    """A progress bar with the time left, on standard error.

    Where nobody could see a bar move, in a pipe or a file, a line is written every 10 seconds of longer work. Only the
    main process shows anything, and nothing is shown where transformers' progress bars are switched off.

    Args:
        desc (`str`): What is done.
        total (`int`, *optional*): How much there is to do, where that is known.
        unit (`str`, *optional*, defaults to `"it"`): What is counted.
        initial (`int`, *optional*, defaults to `0`): How much was done before.

    Returns:
        `tqdm`: The bar, a context manager. `update(0)` shows the time that has passed, and what is left by it.
    """
    # The time left follows from the whole time so far: tqdm's moving average leaves out the time in which nothing is
    # counted, so that it stands still then, and is too short afterwards. `miniters=0` draws it again then, too.
    settings: dict[str, Any] = {
        "total": total,
        "initial": initial,
        "disable": not (logging.is_progress_bar_enabled() and is_main_process()),
        "smoothing": 0,
        "miniters": 0,
    }
    if bars_move():
        return tqdm(desc=desc, unit=f" {unit}", **settings)
    return tqdm(
        desc=f"{desc}: ",
        unit=unit,
        **settings,
        file=_Lines(),
        delay=_LINE_EVERY,
        mininterval=_LINE_EVERY,
        bar_format=_OPEN if total is None else _COUNTED,
    )


def bars_move() -> bool:
    """Whether somebody may see a bar move: at a terminal or in a notebook, not in a pipe or a file."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


class _Lines:
    """Standard error, on which each state of a bar is its own line."""

    def write(self, text: str) -> None:
        if line := text.strip():
            sys.stderr.write(f"{line}\n")

    def flush(self) -> None:
        sys.stderr.flush()
