"""How much of the demo fits into a time: arithmetic on the speed of a machine."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_layertracer.demo.budget import LOOKS, Speed, Training, choose_look, choose_training, training_seconds


# Two free cores.
FAST = Speed(
    start=8.0,
    train=0.4,
    update=0.3,
    read=0.13,
    alone=0.05,
    ask=0.008,
    train_dtype="bfloat16",
    ask_dtype="bfloat16",
)
BUSY = replace(FAST, start=30.0, train=3.0, update=2.0, read=1.5, alone=0.3, ask=0.1)
SECONDS = st.floats(0.001, 10)


def planned(speed: Speed, minutes: float) -> tuple[float, Training]:
    look = choose_look(speed, 60 * minutes)
    training = choose_training(speed, look, minutes, 60 * minutes - look.seconds(speed))
    return look.seconds(speed) + training_seconds(speed, look, training), training


def test_a_free_machine_has_time_for_an_exact_diagnosis_and_a_busy_one_for_a_quick_look():
    assert "exact" in choose_look(FAST, 360).name
    assert "quick" in choose_look(BUSY, 360).name
    assert choose_look(BUSY, 36_000) == LOOKS[0]


@given(SECONDS, SECONDS, SECONDS, st.floats(0.1, 60), st.floats(1, 60))
def test_what_is_planned_fits_unless_it_is_the_least(train, read, ask, start, minutes):
    speed = replace(FAST, train=train, update=train, read=read, alone=ask, ask=ask / 8, start=start)
    seconds, training = planned(speed, minutes)
    assert seconds <= 60 * minutes or (training.steps, training.blocks) == (4, 4)


@given(SECONDS, st.floats(1, 30))
def test_more_time_never_means_less(train, minutes):
    speed = replace(FAST, train=train)
    look = LOOKS[-1]
    less, more = (choose_training(speed, look, minutes * times, 60 * minutes * times) for times in (1, 2))
    assert less.steps <= more.steps
    assert less.blocks <= more.blocks
    assert LOOKS.index(choose_look(speed, 60 * minutes)) >= LOOKS.index(choose_look(speed, 120 * minutes))


def test_a_fast_machine_is_done_early():
    seconds, training = planned(
        replace(FAST, start=1, train=0.001, update=0.001, read=0.001, alone=0.001, ask=0.001), 6
    )
    assert (training.steps, training.blocks) == (48, 48)
    assert seconds < 30


@pytest.mark.parametrize("look", LOOKS)
def test_a_look_costs_what_its_passes_and_draws_do(look):
    twice = replace(FAST, alone=2 * FAST.alone, ask=2 * FAST.ask)
    assert look.seconds(twice) == pytest.approx(2 * look.seconds(FAST))
    assert replace(look, repeats=2 * look.repeats).seconds(FAST) >= look.seconds(FAST)


def test_looks_are_listed_from_the_closest_to_the_quickest():
    costs = [look.seconds(FAST) for look in LOOKS]
    assert costs == sorted(costs, reverse=True)
