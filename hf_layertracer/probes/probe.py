"""What a probe is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Probe:
    """A prompt and what should follow it.

    Args:
        prompt (`str` or `tuple[int, ...]`): The prompt, as text or as token ids.
        target (`str` or `int`):
            The text that literally follows the prompt (so an English word begins with its space), or a token id. Only
            its first token is looked for.
        task (`str`, *optional*, defaults to `"default"`): Probes of one task are summarised together.
        choices (`tuple[str, ...]`, *optional*):
            Of a multiple-choice question: all texts that could follow, the target among them.

    Example:

    ```python
    >>> from hf_layertracer import Probe
    >>> Probe("The capital city of France is", " Paris", task="capitals").target
    ' Paris'
    ```
    """

    prompt: str | tuple[int, ...]
    target: str | int
    task: str = "default"
    choices: tuple[str, ...] = ()


def whole_numbers(values: Iterable[Any]) -> list[int]:
    """Token ids as Python's integers.

    Args:
        values (iterable): Numbers of any kind; an array or a tensor of one dimension.

    Returns:
        `list[int]`: The numbers.

    Raises:
        ValueError: One is no whole number, or they are not one list.
    """
    try:
        found = [int(value) for value in values]
        whole = all(bool(number == value) for number, value in zip(found, values, strict=True))
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:  # arrays and tensors fail in their own ways
        raise ValueError("not one list of whole numbers") from error
    if not whole:
        raise ValueError("not one list of whole numbers")
    return found
