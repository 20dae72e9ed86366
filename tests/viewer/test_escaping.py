"""What becomes of other people's text on its way to a page."""

from __future__ import annotations

import html
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from hf_layertracer.viewer.escaping import for_file_name, for_html, for_plotly, plain
from hf_layertracer.viewer.units import amount, layer, number, size


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    handle_startendtag = handle_starttag

    def handle_data(self, data):
        self.text += data


def parsed(text: str) -> Tags:
    parser = Tags()
    parser.feed(f"<p>{text}</p>")
    parser.close()
    return parser


@given(st.text(alphabet=st.characters(), max_size=60))
def test_any_text_is_shown_as_itself_and_holds_no_tag(text):
    shown = parsed(for_html(text, 200))
    assert shown.tags == ["p"]
    assert shown.text == plain(text, 200)
    assert parsed(for_plotly(text, 200)).tags == ["p"]


def test_markup_is_text(markup):
    for escaped in (for_html(markup, 200), f'<b title="{for_html(markup, 200)}">'):
        assert "<" not in escaped.removeprefix('<b title="').removesuffix('">')
    assert not {"$", "{", "}", '"', "'", "`"} & set(for_html(markup, 200).replace("&#36;", ""))
    assert html.unescape(for_html(markup, 200)) == markup
    assert "<" not in for_plotly(markup, 200)


def test_text_is_cut_and_kept_on_one_line():
    assert plain("a\nb\u2028c\u202ed\x00", 80) == "a b c d"
    assert len(plain("x" * 10**6)) == 80
    assert len(for_html("<" * 1000, 10)) == 9 * len("&lt;") + 1
    assert plain("\ud800 half a surrogate") == "half a surrogate"


def test_a_file_name_stays_in_its_folder():
    for name in ("../../etc/passwd", "/etc/passwd", "..", ".", "", "a/../b", "C:\\x", "a\0b", "😀", "con\n"):
        made = for_file_name(name)
        assert made
        assert not made.startswith(".")
        assert not set(made) & set("/\\\0\n:")
    assert for_file_name("Qwen3-0.6B") == "Qwen3-0.6B"


def test_numbers_are_written_for_readers():
    assert [number(1234.5678), number(None), number(0.1, 1)] == ["1,234.568", "–", "0.1"]
    assert [layer(27.5), layer(3.0), layer(None)] == ["27.5", "3", "–"]
    assert [amount(134_515_008), amount(2.5e9), amount(1500), amount(12)] == ["134.5 M", "2.5 B", "1.5 k", "12"]
    assert [size(2**20), size(3 * 2**30)] == ["1.0 MiB", "3.00 GiB"]
