"""The colours of all pictures: Okabe and Ito's, which the colour-blind can tell apart."""

from __future__ import annotations

from collections.abc import Sequence


BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, GREY, BLACK = "#56B4E9", "#CC79A7", "#777777", "#000000"
_KINDS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, GREY)


def kind_colours(kinds: Sequence[str]) -> dict[str, str]:
    """A colour for each kind of layer, in the order in which they first appear.

    Args:
        kinds (`Sequence[str]`): The kind of each layer.

    Returns:
        `dict[str, str]`: Hexadecimal colours. The last one, grey, stands for all kinds beyond the palette, as a colour
            used twice would mislead.
    """
    return {kind: _KINDS[min(number, len(_KINDS) - 1)] for number, kind in enumerate(dict.fromkeys(kinds))}
