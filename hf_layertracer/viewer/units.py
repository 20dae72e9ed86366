"""Numbers as people read them, with their units."""

from __future__ import annotations


def number(value: float | None, digits: int = 3) -> str:
    """A number to read; a dash for none."""
    return "–" if value is None else f"{value:,.{digits}f}"


def layer(value: float | None) -> str:
    """A layer, which a median may put between two; a dash for none."""
    return "–" if value is None else f"{value:g}"


def amount(value: float) -> str:
    """A count in thousands, millions or billions."""
    for scale, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"{value / scale:,.4g} {unit}"
    return f"{value:g}"


def size(value: float) -> str:
    """Bytes in MiB or GiB."""
    return f"{value / 2**30:,.2f} GiB" if abs(value) >= 2**30 else f"{value / 2**20:,.1f} MiB"
