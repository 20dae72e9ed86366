"""Progress: in a pipe, a line now and then."""

from __future__ import annotations

import pytest
from transformers.utils import logging

from hf_layertracer import progress
from hf_layertracer.progress import progress_bar


@pytest.fixture(autouse=True)
def _lines_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    logging.enable_progress_bar()
    monkeypatch.setattr(progress, "_LINE_EVERY", 0)


@pytest.mark.parametrize(("total", "said"), [(4, "Counting: 50 % (2 of 4 layers), 00:0"), (None, "Counting: 00:0")])
def test_each_state_is_a_line_of_its_own(capsys, total, said):
    with progress_bar("Counting", total=total, unit="layers") as bar:
        bar.update(2)
        bar.update(0)
    shown = capsys.readouterr().err
    lines = shown.splitlines()
    assert all(line.startswith("Counting: ") for line in lines)
    assert any(line.startswith(said) for line in lines)
    assert "\r" not in shown


def test_short_work_says_nothing(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_LINE_EVERY", 10)
    with progress_bar("Counting", total=2) as bar:
        bar.update(2)
    assert capsys.readouterr().err == ""


def test_the_switch_of_transformers_counts(capsys):
    logging.disable_progress_bar()
    with progress_bar("Counting", total=2) as bar:
        bar.update(1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("seen", [False, True])
def test_the_time_left_is_counted_anew_while_nothing_is_counted(capsys, monkeypatch, seen):
    monkeypatch.setattr(progress, "bars_move", lambda: seen)
    with progress_bar("Counting", total=4, unit="layers") as bar:
        began = bar.start_t
        for passed, counted in ((60, 2), (180, 0)):
            monkeypatch.setattr(bar, "_time", lambda now=began + passed: now)
            bar.update(counted)
        shown = capsys.readouterr().err
    # Two took a minute, and then two minutes more passed: the other two are no longer a minute away.
    for left in ("01:00", "03:00"):
        assert (f"<{left}" if seen else f"{left} left") in shown
