"""Cuts a text in two, at the end of a line: NAME.train.txt and, its last twentieth, NAME.held_out.txt.

python hold_out.py data/python_docs_en.txt
"""

from __future__ import annotations

import sys
from pathlib import Path


SHARE = 20


def main(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    wanted = sum(map(len, lines)) * (SHARE - 1) // SHARE
    read = first = 0
    while read < wanted:
        read += len(lines[first])
        first += 1
    for part, text in (("train", lines[:first]), ("held_out", lines[first:])):
        path.with_name(f"{path.stem}.{part}.txt").write_text("".join(text), encoding="utf-8")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        main(Path(name))
