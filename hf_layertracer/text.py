"""Text as people read it: ranges, single lines."""

from __future__ import annotations


def compact_ranges(indices: list[int]) -> str:
    """Writes layer indices as ranges: `[0, 1, 2, 5]` becomes `"0-2, 5"`.

    Args:
        indices (`list[int]`): Indices from 0 in any order.

    Returns:
        `str`: The ranges in ascending order, or `"none"` where there are no indices.
    """
    runs: list[list[int]] = []
    for index in sorted(set(indices)):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs) or "none"


def one_line(text: str, limit: int) -> str:
    """Makes a single line of printable characters of a text, cut in the end where it is longer than `limit`.

    Args:
        text (`str`): Any text.
        limit (`int`): Most characters to return, the ellipsis included.

    Returns:
        `str`: The line, without spaces at its ends.
    """
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"
