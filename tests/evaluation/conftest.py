"""Tiny benchmarks in the layouts that people have on their disks."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


Row = dict[str, Any]


def lettered(count: int, question: str = "question", answer: str = "answer") -> list[Row]:
    """Questions whose right answers go round."""
    return [
        {
            "id": str(index),
            question: f" What is {index}? ",
            **dict(zip("ABCD", ("cat", "rose", "北京", f"the {index}"), strict=True)),
            answer: "ABCD"[index % 4],
        }
        for index in range(count)
    ]


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[[str, list[Row]], None]:
    """`write_csv("dev/law.csv", rows)` below the test's folder."""

    def write(name: str, rows: list[Row]) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]) if rows else ["id"])
            writer.writeheader()
            writer.writerows(rows)

    return write


@pytest.fixture
def ceval(tmp_path: Path, write_csv) -> str:
    """Three questions on accountancy, which lm-evaluation-harness knows, and one on a subject that it does not."""
    for subject, count in (("accountant", 3), ("rose_growing", 1)):
        write_csv(f"my_ceval/{subject}/{subject}_val.csv", lettered(count))
        dev = [row | {"explanation": "As everybody knows."} for row in lettered(5)[2:]]
        write_csv(f"my_ceval/{subject}/{subject}_dev.csv", dev)
    return str(tmp_path / "my_ceval")


@pytest.fixture
def cmmlu(tmp_path: Path, write_csv) -> str:
    """Two questions on agronomy."""
    write_csv("my_cmmlu/test/agronomy.csv", lettered(2, "Question", "Answer"))
    write_csv("my_cmmlu/dev/agronomy.csv", lettered(3, "Question", "Answer")[1:])
    return str(tmp_path / "my_cmmlu")


@pytest.fixture
def write_jsonl(tmp_path: Path) -> Callable[[str, list[Row]], str]:
    """`write_jsonl("arc.jsonl", rows)` below the test's folder; its path."""

    def write(name: str, rows: list[Row]) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write
