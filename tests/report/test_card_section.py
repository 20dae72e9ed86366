"""A report's section in a card: nothing outside it changes, and the next report replaces it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hf_layertracer.report.card_section import END, START, put_section
from hf_layertracer.report.markdown import report_section


cards = st.text().filter(lambda text: "layertracer:" not in text) | st.sampled_from(
    ["---\nlicense: mit\n---", "---\r\nlicense: mit\r\n---\r\n# Card\r\n", "# Card", "# Card\n\n\n"]
)


@given(card=cards, section=cards)
def test_a_first_section_goes_to_the_end_and_the_card_stays_as_it_is(card: str, section: str):
    result = put_section(card, section)
    assert result.startswith(card)
    assert result.endswith(f"{END}\n")
    assert result.count(START) == result.count(END) == 1


@given(card=cards, section=cards)
def test_putting_the_same_section_twice_changes_nothing(card: str, section: str):
    once = put_section(card, section)
    assert put_section(once, section) == once


@given(before=cards, after=cards, old=cards, new=cards)
def test_a_later_section_takes_the_place_of_the_earlier(before: str, after: str, old: str, new: str):
    with_old = put_section(before, old) + after
    assert put_section(with_old, new) == put_section(before, new) + after


def test_front_matter_stays_on_top():
    card = "---\nlicense: mit\n---\n# Card\n"
    assert put_section(card, "text\n") == f"{card}\n{START}\ntext\n{END}\n"


def test_an_empty_card_becomes_the_section_alone():
    assert put_section("", "text\n") == f"{START}\ntext\n{END}\n"


def test_windows_line_endings_outside_the_section_survive():
    card = f"# A\r\n{START}\r\nold\r\n{END}\r\n# B\r\n"
    assert put_section(card, "new") == f"# A\r\n{START}\nnew\n{END}\r\n# B\r\n"


def test_a_start_whose_end_was_lost_swallows_nothing():
    torn = f"# A\n{START}\nold\n\n# Written by hand\n"
    once = put_section(torn, "new")
    assert once.startswith(torn)
    again = put_section(once, "newer")
    assert again.startswith(torn)
    assert "newer" in again
    assert "\nnew\n" not in again


def test_markers_inside_a_sentence_are_not_a_section():
    card = f"The section stands between {START} and {END}.\n"
    assert put_section(card, "text").startswith(card)


def test_a_report_with_a_marker_in_it_is_replaced_whole(make_report):
    card = "---\nlicense: mit\n---\n"
    first = put_section(card, report_section(make_report(notes=[f"{END} x"])))
    second = put_section(first, report_section(make_report()))
    assert second == put_section(card, report_section(make_report()))
