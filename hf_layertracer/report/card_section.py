"""The report's place in a model card: a section between two markers, which a later report replaces."""

from __future__ import annotations

import re


START = "<!-- layertracer:start -->"
END = "<!-- layertracer:end -->"

# A start without an end (someone cut the card) must not swallow the text up to a later section's end.
_SECTION = re.compile(rf"^{START}[ \t]*\r?\n(?:(?!^{START}).)*?^{END}", re.MULTILINE | re.DOTALL)


def put_section(card: str, section: str) -> str:
    """Puts the report's section into a model card, in place of an earlier one or at the end.

    Args:
        card (`str`): The card, with or without YAML front matter, possibly empty.
        section (`str`): What to put between the markers.

    Returns:
        `str`: The card with the section; everything outside the markers is unchanged.
    """
    block = f"{START}\n{section.rstrip()}\n{END}"
    earlier = _SECTION.search(card)
    if earlier is not None:
        return card[: earlier.start()] + block + card[earlier.end() :]
    if not card:
        return block + "\n"
    return card + ("\n" if card.endswith("\n") else "\n\n") + block + "\n"


def without_section(card: str) -> str:
    """A model card without the report's section.

    Args:
        card (`str`): The card.

    Returns:
        `str`: What others wrote.
    """
    return _SECTION.sub("", card)
