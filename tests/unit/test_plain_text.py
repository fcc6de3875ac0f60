"""Names of others as text: shown, and not obeyed."""

from __future__ import annotations

import unicodedata

import pytest

from pipeline.plain_text import plain_line, plain_text

KEPT = ["n01440764/ILSVRC2012_val_00000293.JPEG", "été 日本 שלום", "a/b\\c.png", "<b>|*`", "🐈‍⬛"]


@pytest.mark.parametrize("text", KEPT)
def test_what_people_write_stays(text: str) -> None:
    assert plain_line(text) == plain_text(text) == text


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("\x1b[2J", r"\x1b[2J"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("nul\0", r"nul\x00"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202egnp", r"\u202egnp"),
        ("a\u2028b", r"a\u2028b"),
        ("\ud800", r"\ud800"),
        ("\ufeff\uffff", r"\ufeff\uffff"),
    ],
)
def test_what_a_terminal_obeys_is_spelled_out(text: str, spelled: str) -> None:
    assert plain_line(text) == spelled


def test_a_text_of_several_lines_keeps_them_and_nothing_else() -> None:
    assert plain_text("one\n\ttwo\r\x1b") == "one\n\ttwo\\r\\x1b"


def test_every_control_character_of_unicode_is_spelled_out() -> None:
    # Cc are controls, Cs halves of characters; the marks and overrides of direction are among Cf.
    characters = [chr(code) for code in range(0x110000)]
    controls = [one for one in characters if unicodedata.category(one) in ("Cc", "Cs")]
    turning = [
        one
        for one in characters
        if unicodedata.bidirectional(one) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    ]
    assert all(plain_line(one).isascii() and len(plain_line(one)) > 1 for one in (*controls, *turning))
    spelled = {one for one in characters if plain_line(one) != one}
    assert spelled - {*controls, *turning} == {*"\u061c\u200e\u200f\u2028\u2029\ufeff\ufffe\uffff"}
