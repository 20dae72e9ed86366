"""`results.md`: the tables, the pictures, and what a reader has to know."""

from __future__ import annotations

from collections.abc import Collection

from ..modeling.facts import public_model_id
from ..text import one_line
from .figures import LOSSES_FILE, TRADE_OFF_FILE
from .results import TrialsResult
from .tables import ResultTable, result_tables


def results_markdown(result: TrialsResult, *, pictures: Collection[str] = ()) -> str:
    """A trial as Markdown.

    Args:
        result ([`TrialsResult`]): The trial, finished or not.
        pictures (`Collection[str]`, *optional*): Names of the pictures that lie beside it.

    Returns:
        `str`: The text.
    """
    train, parts = result.config["train"], ["# Trials: which layers to train", ""]
    model = public_model_id(result.config["model"])
    step = train["batch_size"] * train["sequence_length"]
    # Whole steps are made, so that a run may be shorter than its budget.
    parts.append(
        f"{_cell(model)}, {train['tokens'] // step * step} tokens a run in steps of {train['batch_size']} x "
        f"{train['sequence_length']}, seeds {', '.join(map(str, result.config['seeds']))}; {len(result.arms)} arms."
    )
    if result.missing:
        parts += [
            "",
            f"**Not finished:** {len(result.missing)} of the runs are missing ({', '.join(result.missing)}).",
        ]
    for name, cause in result.failures.items():
        parts += ["", f"**Failed:** {name}: {_cell(cause)}"]
    if TRADE_OFF_FILE in pictures:
        parts += ["", f"![Learned against forgotten]({TRADE_OFF_FILE})"]
    for table in result_tables(result):
        parts += ["", f"## {table.title}", "", *_table(table), "", table.caption]
    if LOSSES_FILE in pictures:
        parts += ["", f"![Training loss of each arm]({LOSSES_FILE})"]
    if notes := result.all_notes:
        parts += ["", "## Notes", "", *(f"* {_cell(note)}" for note in notes)]
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    parts += ["", f"Made by `layertracer trials run` with {versions}.", ""]
    return "\n".join(parts)


def _table(table: ResultTable) -> list[str]:
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    grey = [table.columns, *table.rows]
    return [
        "| "
        + " | ".join(
            f"<sub>{_cell(cell)}</sub>" if index in table.grey and line in grey and cell else _cell(cell)
            for index, cell in enumerate(line)
        )
        + " |"
        for line in lines
    ]


def _cell(text: str) -> str:
    return one_line(text, 500).replace("|", "\\|").replace("<", "&lt;")
