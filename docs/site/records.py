"""The page of the report's schema, from the fields and docstrings of the records."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from typing import Any

from pydantic import BaseModel

from hf_layertracer import LayerTracerReport
from hf_layertracer.report.report import REPORT_FILE


INTRODUCTION = f"""# The report

`{REPORT_FILE}` is what a diagnosis or a traced run leaves behind: one JSON object, self-contained. This page is made from
the records in the code. Layers are numbered from 0, as in `model.layers[0]`; Layer Sensitivity is in bits, from 0 to 1.
The library refuses a report of a newer schema version than it knows, and reads older ones.
"""


def records_page() -> str:
    """Markdown: a table for each record, beginning with the report."""
    parts = [INTRODUCTION.strip()]
    for record in records():
        summary = (record.__doc__ or "").strip().split("\n\n")[0]
        title = "The report itself" if record is LayerTracerReport else f"`{record.__name__}`"
        parts += [f"## {title} {{ #{record.__name__} }}", " ".join(summary.split()), _table(record)]
    return "\n\n".join(parts) + "\n"


def records() -> list[type]:
    """Every record that a report can hold, in the order in which its fields lead to them."""
    found: list[type] = [LayerTracerReport]
    for record in found:
        for annotation in fields(record).values():
            found += [kind for kind in _records_in(annotation) if kind not in found]
    return found


def fields(record: type) -> dict[str, Any]:
    """The types of a record's fields."""
    if issubclass(record, BaseModel):
        return {name: field.annotation for name, field in record.model_fields.items()}
    hints = typing.get_type_hints(record)
    return {field.name: hints[field.name] for field in dataclasses.fields(record)}


def descriptions(record: type) -> dict[str, str]:
    """What the `Args:` of a record's docstring, and of those that it extends, say of each field."""
    found: dict[str, str] = {}
    for kind in reversed(record.__mro__):
        lines = (kind.__doc__ or "").splitlines() if kind.__module__.startswith("hf_layertracer") else []
        names: list[str] = []
        for line in lines:
            begin = re.match(
                r"\s+((?:\w+ \([^)]*\)(?:, )?)+(?:, \w+ \([^)]*\))*|\w+(?:, \w+)+ \([^)]*\)):\s*(.*)", line
            )
            if begin:
                names = re.findall(r"(\w+)(?=,? \(|, )", begin[1]) if "," in begin[1] else [begin[1].split()[0]]
                names = [name for name in names if name in fields(record)]
                found |= dict.fromkeys(names, begin[2])
            elif not line.strip() or line.strip().endswith(":"):
                names = []
            else:
                for name in names:
                    found[name] = f"{found[name]} {line.strip()}".strip()
    return found


def _table(record: type) -> str:
    said = descriptions(record)
    rows = ["| field | type | |", "|---|---|---|"]
    for name, annotation in fields(record).items():
        rows.append(f"| `{name}` | {_type(annotation)} | {_cell(said.get(name, ''))} |")
    return "\n".join(rows)


def _cell(text: str) -> str:
    return re.sub(r"\[`~?([\w.]+)`\]", r"`\1`", text).replace("|", "\\|")


def _records_in(annotation: Any) -> list[type]:
    inner = typing.get_args(annotation)
    if inner:
        return [kind for part in inner for kind in _records_in(part)]
    return [annotation] if _is_record(annotation) else []


def _is_record(kind: Any) -> bool:
    ours = isinstance(kind, type) and kind.__module__.startswith("hf_layertracer")
    return ours and (issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind))


def _type(annotation: Any) -> str:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(inner[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if part is type(None) else _type(part) for part in inner)
    if origin is typing.Literal:
        return " or ".join(f"`{value!r}`" for value in inner)
    if origin in (list, tuple, set, frozenset):
        if origin is tuple and inner and inner[-1] is not Ellipsis:
            return f"list of {len(inner)}: {', '.join(_type(part) for part in inner)}"
        return f"list of {_type(inner[0])}" if inner else "list"
    if origin is dict:
        return f"object of {_type(inner[1])} by {_type(inner[0])}"
    if _is_record(annotation):
        return f"[`{annotation.__name__}`](#{annotation.__name__})"
    return f"`{getattr(annotation, '__name__', str(annotation))}`"
