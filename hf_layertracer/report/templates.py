"""The Jinja templates of cards, which lie in `model_cards/` of the repository and in the installed package."""

from __future__ import annotations

from importlib.resources import files
from typing import Any


def card_template(name: str) -> str:
    """The text of a template.

    Args:
        name (`str`): File name in `model_cards/`.

    Returns:
        `str`: A Jinja template.
    """
    return files("hf_layertracer.model_cards").joinpath(name).read_text(encoding="utf-8")


def render(name: str, **values: Any) -> str:
    """Fills a template in.

    Args:
        name (`str`): File name in `model_cards/`.
        values (`Any`): What it names, escaped for Markdown already.

    Returns:
        `str`: The text, ending in a newline.
    """
    import jinja2

    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(card_template(name)).render(values)
