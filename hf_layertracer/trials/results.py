"""What a trial came to: one row a run, and the files that are made of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ..files import write_atomically
from .config import UNTOUCHED
from .folder import write_json


RESULTS_FILE, TABLE_FILE = "results.json", "results.md"
SCHEMA_VERSION = 1


class TrialsResult(BaseModel):
    """What a trial came to.

    Args:
        config (`dict[str, Any]`): The [`TrialsConfig`].
        versions (`dict[str, str]`): Versions of the packages.
        machine (`str`): What it ran on.
        arms (`list[dict[str, Any]]`): The arms with all options, their plans and trainable parameters.
        units (`list[dict[str, Any]]`): The finished runs, the untouched model first: metrics, items, cost, losses.
        failures (`dict[str, str]`): Runs that failed, with the cause.
        missing (`list[str]`): Runs that are not finished.
        notes (`list[str]`): What a reader should know of the trial as a whole.
    """

    config: dict[str, Any]
    versions: dict[str, str]
    machine: str
    arms: list[dict[str, Any]]
    units: list[dict[str, Any]]
    failures: dict[str, str] = {}
    missing: list[str] = []
    notes: list[str] = []

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row a run: `arm`, `seed`, `strategy`, `options`, `metrics` and `cost`."""
        return [
            {
                "arm": unit["arm"],
                "seed": unit["seed"],
                "strategy": unit["strategy"],
                "options": unit["options"],
                "learning_rate": unit["learning_rate"],
                "metrics": unit["evaluation"]["metrics"],
                "cost": unit["cost"],
                "fingerprint": unit["fingerprint"],
            }
            for unit in self.units
        ]

    @property
    def arm_names(self) -> list[str]:
        """The arms in the order of the config."""
        return [entry["arm"]["name"] for entry in self.arms]

    def runs_of(self, arm: str) -> list[dict[str, Any]]:
        """The finished runs of an arm, or of the untouched model.

        Args:
            arm (`str`): Its name.
        """
        return [unit for unit in self.units if unit["arm"] == arm]

    @property
    def untouched(self) -> dict[str, Any] | None:
        """The evaluation of the model before training, if it is finished."""
        return next(iter(self.runs_of(UNTOUCHED)), None)

    @property
    def all_notes(self) -> list[str]:
        """What a reader should know, with how each set was evaluated and what its errors rest on."""
        if self.untouched is None:
            return self.notes
        evaluation = self.untouched["evaluation"]
        protocols = [f"{name}: {protocol}." for name, protocol in evaluation["protocols"].items()]
        return [*self.notes, *protocols, *evaluation["notes"]]

    @property
    def is_complete(self) -> bool:
        """Whether every run is finished."""
        return not self.missing

    def to_dict(self) -> dict[str, Any]:
        """What `results.json` holds: also the tables and the points of the picture, which need the items to be made."""
        from .tables import result_tables
        from .trade_off import trade_off

        points = trade_off(self)
        return {
            "schema_version": SCHEMA_VERSION,
            "rows": self.rows,
            "arms": self.arms,
            "failures": self.failures,
            "missing": self.missing,
            "notes": self.all_notes,
            "config": self.config,
            "versions": self.versions,
            "machine": self.machine,
            "tables": [asdict(table) | {"grey": sorted(table.grey)} for table in result_tables(self)],
            "trade_off": None if points is None else points.model_dump(mode="json"),
        }

    def save(self, directory: str | Path, *, pictures: bool = True) -> None:
        """Writes `results.json` and `results.md`, and the pictures.

        Args:
            directory (`str` or `Path`): The folder.
            pictures (`bool`, *optional*, defaults to `True`): Draw them too.

        Raises:
            LayerTracerError: The folder cannot be written to.
        """
        from .figures import LOSSES_FILE, TRADE_OFF_FILE, draw_losses, draw_trade_off, png

        directory = Path(directory)
        write_json(directory / RESULTS_FILE, self.to_dict())
        drawn = {TRADE_OFF_FILE: draw_trade_off, LOSSES_FILE: draw_losses} if pictures else {}
        figures = {name: figure for name, draw in drawn.items() if (figure := draw(self)) is not None}
        for name, figure in figures.items():
            write_atomically(directory / name, png(figure))
        write_atomically(directory / TABLE_FILE, self.to_markdown(pictures=figures).encode())

    def to_markdown(self, *, pictures: Collection[str] = ()) -> str:
        """The tables and notes as Markdown.

        Args:
            pictures (`Collection[str]`, *optional*): Which of the pictures that [`save`] draws lie beside it.
        """
        from .markdown import results_markdown

        return results_markdown(self, pictures=pictures)

    @classmethod
    def load(cls, directory: str | Path) -> TrialsResult:
        """Reads the results of a trial, finished or not.

        Args:
            directory (`str` or `Path`): Folder that [`run_trials`] wrote to.

        Returns:
            [`TrialsResult`]: What it has come to so far.

        Raises:
            LayerTracerError: There is no trial.
        """
        from .folder import TrialFolder
        from .run import collect

        return collect(TrialFolder(Path(directory)))
