"""The probes that ship with the package."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from .probe import Probe


# A pair is asked in both directions, each by its own template; the next pair by the other two. No template holds a word
# of any pair.
_TEMPLATES = {
    "antonym": (
        "The opposite of {} is",
        "The antonym of the word {} is",
        "Opposites: up and down, yes and no, {} and",
        "A dictionary of opposites. up: down; yes: no; {}:",
    ),
    "synonym": (
        "Another word for {} is",
        "A synonym of the word {} is",
        "Words with the same meaning: sofa and couch, taxi and cab, {} and",
        "A dictionary of synonyms. sofa: couch; taxi: cab; {}:",
    ),
}


def builtin_probes(name: str = "builtin") -> list[Probe]:
    """The probes that ship with the package.

    Args:
        name (`str`, *optional*, defaults to `"builtin"`):
            `"builtin"`: 144 of facts, grammar, everyday knowledge and code, in English and Chinese.
            `"builtin:structured"`: 500 that ask for antonyms and synonyms of English words, in a few templates.

    Returns:
        `list[Probe]`: The probes, in a fixed order.

    Raises:
        KeyError: There is no such set.

    Example:

    ```python
    >>> from hf_layertracer.probes import builtin_probes
    >>> builtin_probes("builtin:structured")[0]
    Probe(prompt='The opposite of hot is', target=' cold', task='antonym', choices=())
    ```
    """
    return BUILTIN[name]()


def _mixed() -> list[Probe]:
    return [Probe(**row) for row in _rows("probes.jsonl")]


def _structured() -> list[Probe]:
    probes = []
    for number, row in enumerate(_rows("word_pairs.jsonl")):
        templates = _TEMPLATES[row["relation"]]
        for direction, (word, other) in enumerate((row["words"], row["words"][::-1])):
            template = templates[(2 * number + direction) % len(templates)]
            probes.append(Probe(template.format(word), f" {other}", row["relation"]))
    return probes


def _rows(name: str) -> list[dict[str, Any]]:
    text = (files("hf_layertracer") / "data" / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


BUILTIN = {"builtin": _mixed, "builtin:structured": _structured}
