"""The page of settings says what tests show."""

from __future__ import annotations

import re
from pathlib import Path

from support.compatibility import PAGE, page, tables


def test_the_page_is_current():
    assert PAGE.read_text(encoding="utf-8") == page(), "run PYTHONPATH=tests python -m support.compatibility"


def test_each_setting_names_a_test_that_is_there():
    rows = [row for table in tables().values() for row in table]
    assert len({row["setting"] for row in rows}) == len(rows) >= 50
    for row in rows:
        file, _, name = row["test"].partition("::")
        assert re.search(rf"^def {name}\(", (Path(__file__).parent / file).read_text(), re.MULTILINE), row
