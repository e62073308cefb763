"""Text from outside, made fit to be printed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aetheris_client.admin.text import one_line, printable, printable_json

ANY_TEXT = st.text(st.characters())


@given(ANY_TEXT)
def test_any_text_is_shown_printable_and_nothing_printable_is_lost(text: str):
    shown = printable(text)
    assert shown.isprintable()
    left = iter(shown)
    assert all(char in left for char in text if char.isprintable())


@pytest.mark.parametrize(
    "text,shown",
    [
        ("\x1b[31m", r"\x1b[31m"),
        ("\x9b2J", r"\x9b2J"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\u202etxt.exe", r"\u202etxt.exe"),
        ("\U000e0041", r"\U000e0041"),
        ("[bold]a[/]", "[bold]a[/]"),
        ("Zoë 東京 🙂", "Zoë 東京 🙂"),
    ],
)
def test_character_that_is_not_printable_is_shown_as_its_escape(text: str, shown: str):
    assert printable(text) == shown


def test_message_of_many_lines_is_one_line():
    assert one_line("a\n  b\x1b") == r"a b\x1b"


@given(ANY_TEXT, st.sampled_from(["utf-8", "ascii", "latin-1"]))
def test_any_json_document_is_printable_in_any_encoding_and_of_the_same_value(
    text: str, encoding: str
):
    value = {"a": [text], text: 1}
    shown = printable_json(json.dumps(value, ensure_ascii=False, indent=2), encoding)
    assert shown.replace("\n", "").isprintable()
    assert shown.encode(encoding)
    assert json.loads(shown) == value
