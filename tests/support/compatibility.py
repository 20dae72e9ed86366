"""Every setting that is tried with a traced run, what happens, and the test that shows it.

`PYTHONPATH=tests python -m support.compatibility` writes `docs/compatibility.md`; a test checks that it is current.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from .trainer_settings import SETTINGS


PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
HEAD = """# Settings that were tried

{count} settings of training scripts, what happens when `LayerTracerTrainer` takes the place of `Trainer`, and the test
below `tests/training/` that shows it. `PYTHONPATH=tests python -m support.compatibility` writes this page, and a test
checks that it is current.
"""


def tables() -> dict[str, list[dict[str, str]]]:
    """The rows of each area: `setting`, `happens` and `test`, which is `file::function`."""
    found = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    test = "test_side_by_side.py::test_ours_with_full_is_trainer"
    alike = [
        {"setting": f"`{name}`", "happens": "as `Trainer`, to the bit, with `full`", "test": test} for name in SETTINGS
    ]
    return {"Arguments of the Trainer": alike + found.pop("Arguments of the Trainer"), **found}


def page() -> str:
    """The page as Markdown."""
    found = tables()
    lines = [HEAD.format(count=sum(map(len, found.values())))]
    for area, rows in found.items():
        lines += [f"## {area}", "", "| Setting | What happens | Test |", "|---|---|---|"]
        lines += [*(f"| {row['setting']} | {row['happens']} | `{row['test']}` |" for row in rows), ""]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
