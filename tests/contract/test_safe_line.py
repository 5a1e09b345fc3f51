"""Tests of the one line that shows text of the server."""

import pytest

from later_reporting_dagster.contract.safe_line import safe_line

SECRET = 's3cr3t "Zq7"/+&<%41>-0123456789'


def test_safe_line_replaces_each_secret_wherever_it_occurs_as_it_is():
    text = f"rejected: {SECRET}, {SECRET}: Bearer t0ken"
    assert safe_line(text, ["", SECRET, "t0ken"]) == "rejected: [hidden], [hidden]: Bearer [hidden]"


@pytest.mark.parametrize("text", ["3f2504e0-4f89-11d3-9a0c-0305e82c3301", "x" * 200, f"{SECRET[:20]} {SECRET.upper()}"])
def test_safe_line_shows_any_other_text_whole(text):
    assert safe_line(text, [SECRET]) == text


def test_safe_line_is_one_short_printable_line():
    assert safe_line("a\x1b[31m red\r\n\udc80 line\u202e") == "a�[31m red � line�"
    assert safe_line(f"{'x' * 190} {SECRET}", [SECRET]) == f"{'x' * 190} [hidden]"
    assert safe_line("x" * 201) == f"{'x' * 200}…"
