"""How long a trial will take."""

from __future__ import annotations

import pytest

from hf_layertracer.trials.status import UnitStatus, seconds_left


def test_what_is_left_takes_as_long_a_step_as_what_was_made():
    statuses = [
        UnitStatus("base", "finished", 0, 0),
        UnitStatus("full-seed0", "finished", 100, 100, seconds_a_step=3.0),
        UnitStatus("lora-seed0", "running", 40, 100, "training", 1.0),
        UnitStatus("full-seed1", "waiting", 0, 100),
    ]
    assert seconds_left(statuses) == pytest.approx(2.0 * (70 + 110))


def test_nothing_is_said_before_the_first_step():
    assert seconds_left([UnitStatus("full-seed0", "running", 0, 100)]) is None
