"""Edits of YAML text that leave all other bytes as they are, comments and line ends included.

Each edit gives `None` where the text is not written in a way that it knows: then the field is written anew.
"""

from __future__ import annotations

from typing import Any

import yaml
from huggingface_hub.utils import yaml_dump
from yaml import MappingNode, Node, ScalarNode, SequenceNode


def field_of(text: str, name: str) -> Node | None:
    """The value of a field at the top of a mapping that is written in block style."""
    top = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(top, MappingNode) or top.flow_style:
        return None
    return child(top, name)


def child(node: Node, name: str) -> Node | None:
    """The value of a key in a mapping; `None` where there is none."""
    if not isinstance(node, MappingNode):
        return None
    return next((value for key, value in node.value if key.value == name), None)


def add_items(text: str, sequence: Node | None, items: list[Any]) -> str | None:
    """Adds items at the end of a sequence."""
    if not isinstance(sequence, SequenceNode) or not sequence.value:
        return None
    if sequence.flow_style:
        place = end_of(sequence.value[-1])
        lines = [yaml.safe_dump(item, default_flow_style=True, width=10**6).splitlines()[0] for item in items]
        return text[:place] + "".join(f", {line}" for line in lines) + text[place:]
    place = _line_end(text, end_of(sequence.value[-1]))
    written = _written(text, items, sequence.start_mark.column)
    return text[:place] + newline_of(text) + written + text[place:]


def remove_items(text: str, sequence: Node | None, numbers: list[int]) -> str | None:
    """Removes the lines of some items of a sequence, but not of all."""
    if not isinstance(sequence, SequenceNode) or sequence.flow_style or len(numbers) >= len(sequence.value):
        return None
    for number in sorted(numbers, reverse=True):
        item = sequence.value[number]
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
    newline = newline_of(text)
    written = "" if value is None else newline.join(yaml_dump({name: value}, sort_keys=False).splitlines())
    if top is None or (isinstance(top, MappingNode) and not top.flow_style and child(top, name) is None):
        separator = newline if text and not text.endswith("\n") and written else ""
        return text + separator + written
    if not isinstance(top, MappingNode) or top.flow_style:
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


def _line_end(text: str, place: int) -> int:
    stop = text.find("\n", place)
    stop = len(text) if stop < 0 else stop
    return stop - 1 if text[stop - 1 : stop] == "\r" else stop


def _written(text: str, items: list[Any], column: int) -> str:
    lines = yaml_dump(items, sort_keys=False).splitlines()
    return newline_of(text).join(" " * column + line if line else line for line in lines)
