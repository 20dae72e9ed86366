"""Where everything of a trial lies, and who works on it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from ..errors import LayerTracerError
from ..files import write_atomically


def read_json(path: Path) -> Any:
    """The content of a JSON file, or `None` where there is no such file.

    Args:
        path (`Path`): The file.

    Raises:
        LayerTracerError: The file is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise LayerTracerError(f"Could not read {path}: {error}.") from error


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file that is whole or not there.

    Args:
        path (`Path`): The file.
        value (`Any`): What it holds.

    Raises:
        LayerTracerError: The folder cannot be written to, or there is a number that is not finite.
    """
    try:
        text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise LayerTracerError(f"Could not write {path}: JSON has no number that is not finite.") from error
    write_atomically(path, f"{text}\n".encode())


@dataclass(frozen=True)
class UnitFolder:
    """The folder of one run: an arm with a seed, or the untouched model.

    Args:
        path (`Path`): The folder.
    """

    path: Path

    @property
    def settings(self) -> Path:
        """What is to be run, with its fingerprint."""
        return self.path / "unit.json"

    @property
    def trained(self) -> Path:
        """What training came to; it is there once training has ended."""
        return self.path / "trained.json"

    @property
    def result(self) -> Path:
        """Metrics, items and cost; it is there once the unit is finished."""
        return self.path / "result.json"

    @property
    def failure(self) -> Path:
        """Why the last attempt failed."""
        return self.path / "failure.json"

    @property
    def progress(self) -> Path:
        """How far a run has come."""
        return self.path / "progress.json"

    @property
    def log(self) -> Path:
        """All that the process printed."""
        return self.path / "log.txt"

    @property
    def training(self) -> Path:
        """The trainer's output directory, with the checkpoints."""
        return self.path / "training"


@dataclass(frozen=True)
class TrialFolder:
    """The folder of a trial.

    Args:
        path (`Path`): The folder.
    """

    path: Path

    @property
    def trial(self) -> Path:
        """The config and its fingerprint."""
        return self.path / "trial.json"

    @property
    def prepared(self) -> Path:
        """The arms with all options chosen, and their plans."""
        return self.path / "prepared.json"

    @property
    def preparing(self) -> UnitFolder:
        """Where the preparation leaves its log and its failure."""
        return UnitFolder(self.path / "diagnosis")

    @property
    def diagnosis(self) -> Path:
        """The report that all arms share."""
        return self.path / "diagnosis"

    @property
    def blocks(self) -> Path:
        """The training data as token ids."""
        return self.path / "data" / "blocks.npy"

    def blocks_of(self, content: str | None) -> Path:
        """The training data of an arm: its own files by the hash of their content, or what all arms share."""
        return self.blocks if content is None else self.blocks.with_name(f"blocks-{content}.npy")

    def unit(self, name: str) -> UnitFolder:
        """The folder of one unit."""
        return UnitFolder(self.path / "units" / name)

    def claim(self) -> None:
        """Marks the folder as this process's.

        Raises:
            LayerTracerError: Another process works on it.
        """
        if (owner := self.worker()) is not None and owner != os.getpid():
            raise LayerTracerError(f"Process {owner} is running the trials in {self.path}: wait for it, or end it.")
        process = psutil.Process()
        write_json(self.path / "running.json", {"pid": process.pid, "started": process.create_time()})

    def release(self) -> None:
        """Takes the mark away."""
        (self.path / "running.json").unlink(missing_ok=True)

    def worker(self) -> int | None:
        """The process that works on the folder, if it is alive."""
        return living_process(read_json(self.path / "running.json"))


def living_process(mark: dict[str, Any] | None) -> int | None:
    """The process that left a mark with `pid` and `started`, if it is that one and alive.

    Args:
        mark (`dict[str, Any]`, *optional*): The mark.

    Returns:
        `int` or `None`: Its id.
    """
    if mark is None:
        return None
    try:
        process = psutil.Process(mark["pid"])
        alive = process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - mark["started"]) < 1
    except psutil.Error:
        return None
    return process.pid if alive else None
