"""Pieces of HTML: what they say, and that nothing of a report is markup in them."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from support.made_reports import with_further

from hf_layertracer.viewer import html_parts
from hf_layertracer.viewer.glossary import GLOSSARY


ATTRIBUTES = {"class", "tabindex", "role", "aria-label", "data-tip", "scope", "value", "max"}
TAGS = {"div", "h2", "p", "dl", "dt", "dd", "ul", "li", "span", "progress"}
TAGS |= {"details", "summary", "table", "caption", "thead", "tbody", "tr", "th", "td"}


class Reader(HTMLParser):
    """Checks every tag and attribute, and that all are closed."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        assert tag in TAGS, tag
        assert {name for name, _ in attrs} <= ATTRIBUTES, attrs
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(html: str) -> str:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return " ".join(reader.text.split())


def test_the_header_says_what_was_measured(make_report):
    report = make_report(history=True)
    text = read(html_parts.report_title(report)) + read(html_parts.report_facts(report))
    for part in (
        "someone/tiny-llama",
        "6 layers",
        "revision 0123abc",
        "measured 2026-01-02",
        "layer 3.5, 95 % interval 3.25 to 3.75; 3 of 4 probes resolved",
        "0, with 0.600 ± 0.020 bits",
        "+0.242 ± 0.015 bits",
        "50% of 4 probes",
        "freeze-deep: trains layers 0-2",
        "60 M of 120 M (50%)",
        "480.0 MiB of 960.0 MiB (50%)",
        "3.250 before, 3.000 after 20 steps",
        "Deep layers execute the tasks and are stable.",
    ):
        assert part in text


def test_a_report_without_plan_and_training_says_neither(make_report):
    text = read(html_parts.report_facts(make_report(plan=None)))
    assert "trainable" not in text
    assert "held-out" not in text


def test_known_terms_explain_themselves_to_pointer_and_keyboard():
    html = html_parts.term("Task Particle")
    assert 'tabindex="0"' in html
    assert GLOSSARY["Task Particle"] in html
    assert read(html) == "Task Particle"
    assert html_parts.term("something else") == "something else"


def test_a_table_has_a_caption_and_headings_that_a_screen_reader_reads():
    html = html_parts.table(["layer", "Layer Sensitivity"], [["0", "0.5"], ["1", "0.25"]], "Values")
    assert read(html) == "Values layerLayer Sensitivity 00.5 10.25"
    assert html.count('scope="col"') == 2
    assert html.count('scope="row"') == 2
    assert 'role="region"' in html
    assert 'aria-label="Values"' in html


def test_messages_are_announced():
    assert 'role="alert"' in html_parts.error("wrong")
    assert 'role="status"' in html_parts.note("fine")
    assert read(html_parts.progress("Diagnosing", 0.5)) == "Diagnosing"
    assert 'value="0.50"' in html_parts.progress("x", 0.5)


def test_nothing_of_a_report_is_markup(full_of, draw_everything, markup):
    for text in draw_everything(full_of(markup)):
        if text.startswith("<"):
            read(text)
            for char in "${}`":
                assert char not in text


@pytest.mark.parametrize(
    "make",
    [html_parts.error, html_parts.note, lambda text: html_parts.progress(text, 0), lambda text: html_parts.term(text)],
)
def test_no_message_is_markup(make, markup):
    read(str(make(markup)))
    assert "<script" not in str(make(markup))


def test_a_long_report_makes_a_short_page(full_of, make_report):
    report = full_of("word " * 4000)
    report.notes = ["note " * 1000] * 1000
    assert len(html_parts.report_title(report) + html_parts.report_facts(report)) < 40_000


def test_the_second_rule_and_the_context_are_among_the_facts(make_report):
    text = read(html_parts.report_facts(with_further(make_report())))
    assert "Task Particle, max-ratio rule" in text
    assert "layer 4" in text
    assert "largest at layer 0, with 0.400 ± 0.050 bits" in text
    assert "max-ratio" not in read(html_parts.report_facts(make_report()))


def test_errors_that_are_not_known_are_not_shown(make_report):
    report = with_further(make_report(sensitivity__draws=1, sensitivity__stderr=[0.0] * 6))
    report.first.context.delta_stderr = [0.0] * 6
    text = read(html_parts.report_facts(report))
    assert "0, with 0.600 bits" in text
    assert "+0.242 bits" in text
    assert "largest at layer 0, with 0.400 bits" in text
    assert "±" not in text
