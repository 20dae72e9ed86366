"""Text as people read and write it: ranges, single lines, amounts of memory, numbers with their errors."""

from __future__ import annotations

import math
import re
from numbers import Integral

from .errors import LayerTracerError


_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
# Beyond these, digits of a divergence in bits mean nothing.
_DECIMALS = (3, 7)


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


def dtype_name(dtype: object) -> str:
    """Writes one of PyTorch's data types as configurations do: `torch.bfloat16` becomes `"bfloat16"`."""
    return str(dtype).removeprefix("torch.")


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


def check_unicode(text: str, place: str) -> None:
    """Refuses halves of characters, which JSON can hold; tokenizers fail at them without a word of where they stand.

    Args:
        text (`str`): Any text.
        place (`str`): Where it stands, to be named.

    Raises:
        LayerTracerError: The text cannot be tokenized.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise LayerTracerError(
            f"{place}: the text holds half a character (a lone surrogate), which no tokenizer reads."
        ) from error


def parse_bytes(size: str | int, setting: str | None = None) -> int:
    """Reads an amount of memory; `GB` and `GiB` both mean 1024 x 1024 x 1024 bytes, as accelerators are labelled.

    Args:
        size (`str` or `int`): `"22GB"`, `"512MiB"`, or a number of bytes.
        setting (`str`, *optional*): The setting that it was given for, to be named where it is wrong.

    Returns:
        `int`: Bytes.

    Raises:
        LayerTracerError: It is no amount of memory.

    Example:

    ```python
    >>> from hf_layertracer.text import parse_bytes
    >>> parse_bytes("1.5 GiB")
    1610612736
    ```
    """
    match = (
        _SIZE.fullmatch(str(size).strip()) if isinstance(size, str | Integral) and not isinstance(size, bool) else None
    )
    value = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if value <= 0:
        given = f"{setting}={size!r:.40}" if setting else f"{size!r:.40}"
        raise LayerTracerError(f"{given} is no amount of memory. Write it as '24GB', '512MiB' or a number of bytes.")
    return value


def gibibytes(size: float) -> str:
    """An amount of memory as people compare it.

    Args:
        size (`float`): Bytes.

    Returns:
        `str`: GiB with two decimals, of small amounts two significant digits.

    Example:

    ```python
    >>> from hf_layertracer.text import gibibytes
    >>> gibibytes(24 * 2**30), gibibytes(2**20)
    ('24.00 GiB', '0.00098 GiB')
    ```
    """
    value = size / 2**30
    return f"{value:.2f} GiB" if value >= 0.1 or value == 0 else f"{value:.2g} GiB"


def with_error(value: float, stderr: float | None = None, *, sign: bool = False) -> str:
    """A measurement with its standard error, to the digits that the error leaves a meaning.

    Args:
        value (`float`): The value.
        stderr (`float`, *optional*): Its standard error, where it is known.
        sign (`bool`, *optional*, defaults to `False`): Whether a plus is written too.

    Returns:
        `str`: At least three decimals, more where the error is smaller.

    Example:

    ```python
    >>> from hf_layertracer.text import with_error
    >>> with_error(0.0023, 0.0004), with_error(0.31234, 0.021, sign=True)
    ('0.0023 ± 0.0004', '+0.312 ± 0.021')
    ```
    """
    smallest = stderr or abs(value)
    least, most = _DECIMALS
    decimals = least if not smallest else min(max(least, -math.floor(math.log10(smallest))), most)
    text = f"{value:{'+' if sign else ''}.{decimals}f}"
    return text if stderr is None else f"{text} ± {stderr:.{decimals}f}"
