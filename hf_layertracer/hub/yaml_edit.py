"""Edits of YAML text that leave all other bytes as they are, comments and line ends included.

Each edit gives `None` where the text is not written in a way that it knows: then the field is written anew.
"""

from __future__ import annotations

from typing import Any

import yaml
from huggingface_hub.utils import yaml_dump
from yaml import MappingNode, Node, ScalarNode, SequenceNode


def field_of(text: str, name: str) -> Node | None:
    """The value of a field of the mapping that the text is; `None` where there is none."""
    top = yaml.compose(text, Loader=yaml.SafeLoader)
    return None if top is None else child(top, name)


def child(node: Node, name: str) -> Node | None:
    """The value of a key in a mapping; `None` where there is none."""
    if not isinstance(node, MappingNode):
        return None
    return next((value for key, value in node.value if key.value == name), None)


def add_items(text: str, sequence: Node | None, items: list[Any]) -> str | None:
    """Adds items at the end of a sequence."""
    if not isinstance(sequence, SequenceNode):
        return None
    if sequence.flow_style:
        place = end_of(sequence.value[-1]) if sequence.value else sequence.start_mark.index + 1
        lines = ", ".join(_in_flow(item) for item in items)
        return f"{text[:place]}{', ' if sequence.value else ''}{lines}{text[place:]}"
    place = _line_end(text, end_of(sequence.value[-1]))
    written = _written(text, items, sequence.start_mark.column)
    return text[:place] + newline_of(text) + written + text[place:]


def remove_items(text: str, sequence: Node | None, numbers: list[int]) -> str | None:
    """Removes some items of a sequence, but not all."""
    if not isinstance(sequence, SequenceNode) or len(numbers) >= len(sequence.value):
        return None
    for number in sorted(numbers, reverse=True):
        item = sequence.value[number]
        if sequence.flow_style:
            text = _without_entry(text, [(entry, entry) for entry in sequence.value], number)
            sequence.value.pop(number)
            continue
        start = text.rfind("\n", 0, item.start_mark.index) + 1
        dash = start + sequence.start_mark.column
        if text[start:dash].strip() or text[dash : dash + 1] != "-":
            return None
        stop = _line_end(text, end_of(item))
        if stop < len(text):
            stop = text.index("\n", stop) + 1
        else:
            start = max(0, start - len(newline_of(text)))
        text = text[:start] + text[stop:]
    return text


def replace_field(text: str, name: str, value: Any) -> str | None:
    """Writes a field at the top anew, or adds it at the end; a value of `None` takes it out."""
    top = yaml.compose(text, Loader=yaml.SafeLoader)
    if isinstance(top, MappingNode) and top.flow_style:
        return _replace_in_flow(text, top, name, value)
    newline = newline_of(text)
    written = "" if value is None else newline.join(yaml_dump({name: value}, sort_keys=False).splitlines())
    if top is None or (isinstance(top, MappingNode) and child(top, name) is None):
        separator = newline if text and not text.endswith("\n") and written else ""
        return text + separator + written
    if not isinstance(top, MappingNode):
        return None
    key, node = next((key, node) for key, node in top.value if key.value == name)
    start, stop = key.start_mark.index, _line_end(text, end_of(node))
    if not written:
        start, stop = (start, text.find("\n", stop) + 1 or stop)
    return text[:start] + written + text[stop:]


def end_of(node: Node) -> int:
    """Where a value ends, without the blank lines and comments behind it."""
    if isinstance(node, SequenceNode | MappingNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return end_of(last[1] if isinstance(last, tuple) else last)
    if isinstance(node, ScalarNode) and node.style in ("|", ">"):
        written = str(node.start_mark.buffer)[node.start_mark.pointer : node.end_mark.pointer]
        return node.start_mark.index + len(written.rstrip())
    return node.end_mark.index


def newline_of(text: str) -> str:
    """How lines end in a text."""
    return "\r\n" if "\r\n" in text else "\n"


def _replace_in_flow(text: str, top: MappingNode, name: str, value: Any) -> str:
    """[`replace_field`] of a mapping in braces."""
    number = next((place for place, (key, _) in enumerate(top.value) if key.value == name), None)
    if number is None:
        place = end_of(top.value[-1][1]) if top.value else top.start_mark.index + 1
        return f"{text[:place]}{', ' if top.value else ''}{_in_flow({name: value})[1:-1]}{text[place:]}"
    if value is None:
        return _without_entry(text, top.value, number)
    node = top.value[number][1]
    return text[: node.start_mark.index] + _in_flow(value) + text[end_of(node) :]


def _without_entry(text: str, entries: list[tuple[Node, Node]], number: int) -> str:
    """Text without one entry of a list or mapping in brackets, given as the nodes that it begins and ends with."""
    start, stop = entries[number][0].start_mark.index, end_of(entries[number][1])
    if number + 1 < len(entries):
        stop = entries[number + 1][0].start_mark.index
    elif number:
        start = end_of(entries[number - 1][1])
    return text[:start] + text[stop:]


def _in_flow(value: Any) -> str:
    written = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)
    return written.splitlines()[0]


def _line_end(text: str, place: int) -> int:
    stop = text.find("\n", place)
    stop = len(text) if stop < 0 else stop
    return stop - 1 if text[stop - 1 : stop] == "\r" else stop


def _written(text: str, items: list[Any], column: int) -> str:
    lines = yaml_dump(items, sort_keys=False).splitlines()
    return newline_of(text).join(" " * column + line if line else line for line in lines)
