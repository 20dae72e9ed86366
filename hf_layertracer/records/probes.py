"""The probes that a report is about: what was asked. What the model answered stands in each diagnosis's `scores`."""

from __future__ import annotations

from .base import Count, Record


class ProbeRecord(Record):
    """One probe as it was asked: texts are cut to 200 characters.

    Args:
        prompt, target (`str`, *optional*): The texts; `None` where the probe is token ids and there was no tokenizer.
        task (`str`): The task.
        tokens (`int`): Length of the prompt in tokens.
    """

    prompt: str | None
    target: str | None
    task: str
    tokens: Count


class ProbeFacts(Record):
    """The probes that every diagnosis of a report asked.

    Args:
        count (`int`): How many there are.
        sha256 (`str`): Hash of all token ids, targets and tasks.
        tasks (`dict[str, int]`): Number of probes of each task.
        items (`list[ProbeRecord]`): The probes.
    """

    count: Count
    sha256: str
    tasks: dict[str, Count]
    items: list[ProbeRecord]
