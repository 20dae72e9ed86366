"""The model card of a hybrid."""

from __future__ import annotations

import re
from typing import Any

import yaml
from huggingface_hub import ModelCardData

from ..hub.card import TAG
from ..report.templates import render
from ..text import compact_ranges, one_line
from .provenance import HybridRecord, LayerOrigin


_UNKNOWN = "not named in its card"


def hybrid_card(record: HybridRecord, repo_id: str) -> str:
    """Writes the card of a hybrid.

    Args:
        record ([`HybridRecord`]): The hybrid; its picture is expected beside the card.
        repo_id (`str`): The repository.

    Returns:
        `str`: The card, with base models, licence and tags in its front matter.
    """
    licenses = {donor: record.licenses.get(donor, _UNKNOWN) for donor in record.donors}
    named = set(record.licenses.values())
    settled = named.pop() if len(named) == 1 and _UNKNOWN not in licenses.values() else None
    on_hub = [donor for donor in record.donors if "/" in donor]
    data = ModelCardData(
        base_model=on_hub or None,
        base_model_relation="merge" if on_hub else None,
        license=settled,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=[TAG, "merge", "hybrid"],
    )
    parts = [(name, getattr(record, name)) for name in ("embeddings", "norm", "head")]
    rest = ", ".join(f"{name} from {_cell(part.donor)}" for name, part in parts if part is not None)
    return render(
        "hybrid_card.md",
        card_data=data.to_yaml(),
        title=repo_id.rsplit("/", 1)[-1],
        repo_id=repo_id,
        architecture=record.architecture,
        remote_code=record.remote_code,
        layers=len(record.layers),
        reason=_cell(str(record.recipe.get("reason") or ""), 2000),
        notes=[_cell(note, 2000) for note in record.notes],
        rows=[[_cell(cell) for cell in row] for row in stack_rows(record)],
        rest=f"{rest[:1].upper()}{rest[1:]}; tokenizer from {_cell(record.tokenizer)}.",
        class_verified=_cell(record.class_verified or "", 2000),
        licenses=[(_cell(donor), _cell(license)) for donor, license in licenses.items()],
        license_warning=_warning(licenses),
        recipe=yaml.safe_dump(record.recipe, sort_keys=False, allow_unicode=True).strip().replace("```", "'''"),
    )


def stack_rows(record: HybridRecord) -> list[list[str]]:
    """A hybrid's layers as a table, with a row for each run of layers that are alike.

    Args:
        record ([`HybridRecord`]): The hybrid.

    Returns:
        `list[list[str]]`: Layers, donor, its layers, kind, new mixer, what was verified.
    """
    rows = []
    for run in _runs(record.layers):
        first = run[0]
        rows.append(
            [
                compact_ranges([entry.layer for entry in run]),
                first.donor if first.revision is None else f"{first.donor}@{first.revision[:12]}",
                compact_ranges([entry.donor_layer for entry in run]),
                first.kind,
                "-" if first.mixer is None else f"{first.mixer}, {first.init}",
                first.verified,
            ]
        )
    return rows


def _runs(layers: list[LayerOrigin]) -> list[list[LayerOrigin]]:
    """Layers that follow each other in the hybrid and in the same donor, and are alike in all that the table says."""
    runs: list[list[LayerOrigin]] = []
    for entry in layers:
        last = runs[-1][-1] if runs else None
        fields = ("donor", "revision", "kind", "mixer", "init", "verified")
        alike = last is not None and all(getattr(last, name) == getattr(entry, name) for name in fields)
        if last is not None and alike and entry.donor_layer == last.donor_layer + 1:
            runs[-1].append(entry)
        else:
            runs.append([entry])
    return runs


def _warning(licenses: dict[str, str]) -> str:
    missing = [donor for donor, license in licenses.items() if license == _UNKNOWN]
    if missing:
        return f"No licence is named by {', '.join(map(_cell, missing))}: ask before you pass this model on."
    if len(set(licenses.values())) > 1:
        return "The donors have different licences: this model has to keep to all of them."
    return ""


def _cell(text: Any, limit: int = 200) -> str:
    """Someone else's text as text, not as Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>|#~])", r"\\\1", one_line(str(text), limit))
