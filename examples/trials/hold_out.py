"""Cuts a text in three, at ends of lines: NAME.train.txt, then one twentieth each, NAME.validation.txt and NAME.test.txt.

Learning rates are chosen on the second and the trials measured on the third.

python hold_out.py data/python_docs_en.txt
"""

from __future__ import annotations

import sys
from pathlib import Path


SHARES = {"train": 18, "validation": 1, "test": 1}  # twentieths


def main(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    length, total = sum(map(len, lines)), sum(SHARES.values())
    read = first = wanted = 0
    for part, share in SHARES.items():
        wanted += share
        last = first
        while last < len(lines) and read * total < length * wanted:
            read += len(lines[last])
            last += 1
        path.with_name(f"{path.stem}.{part}.txt").write_text("".join(lines[first:last]), encoding="utf-8")
        first = last


if __name__ == "__main__":
    for name in sys.argv[1:]:
        main(Path(name))
