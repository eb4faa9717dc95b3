"""Text that fits: nothing is lost but what is marked, and no line is longer than asked."""

from hypothesis import given
from hypothesis import strategies as st

from costmodel.report.text import is_unicode, plain, shorten, to_ascii, wrap_expression, wrap_words

EXPRESSION = "batch*(118013952*ceiling(height/4)*ceiling(width/4) + 2*height*width - 7)"


@given(st.text(), st.integers(0, 40))
def test_shortened_text_fits_and_keeps_both_ends(text, width):
    short = shorten(text, width)
    assert len(short) <= width
    if len(text) <= width:
        assert short == text
    elif width >= 3:
        head, _, tail = short.rpartition("…") if short.count("…") == 1 else (short[:1], "…", short[-1:])
        assert text.startswith(head) and text.endswith(tail)


@given(st.text())
def test_plain_text_is_one_line_of_narrow_characters(text):
    assert plain(text).isprintable()
    assert plain(text, ascii_only=True).isascii()


def test_control_sequences_do_not_reach_the_terminal():
    assert "\x1b" not in plain("\x1b[31mred\x07")


def test_wide_and_combining_characters_are_escaped():
    assert plain("模e\u0301") == "\\u6a21e\\u0301"


def test_our_own_signs_are_spelt_out_in_ascii():
    assert to_ascii("3×224, 5 µs – ⌈H/32⌉ …") == "3x224, 5 us - ceil(H/32) ..."


def test_only_utf_encodings_hold_everything():
    assert is_unicode("utf8") and is_unicode("UTF-8")
    assert not is_unicode("ascii") and not is_unicode("cp1252") and not is_unicode(None)


@given(st.integers(12, 120))
def test_a_wrapped_expression_reads_the_same_and_fits(width):
    lines = wrap_expression(EXPRESSION, width, rest="  ")
    assert max(map(len, lines)) <= width
    assert "".join(line.strip() for line in lines).replace(" ", "") == EXPRESSION.replace(" ", "")


def test_an_expression_breaks_before_plus_and_minus():
    assert wrap_expression("a + b - c", 5, rest="  ") == ["a + b", "  - c"]


@given(st.text(alphabet="ab c", max_size=200), st.integers(10, 60))
def test_wrapped_words_fit_and_none_is_lost(text, width):
    lines = wrap_words(text, width, first="- ", rest="  ")
    assert max(map(len, lines)) <= width
    assert "".join(lines).replace(" ", "").removeprefix("-") == text.replace(" ", "")
