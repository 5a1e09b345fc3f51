"""Tests of the one line that shows text of the server."""

import base64
import html
import json
import re
import time
from urllib.parse import quote_plus

import pytest

from later_reporting_dagster.contract.safe_line import safe_line

SECRET = 'eyJhbGci.s3cr3t "Zq7"/\\+&<%41>-0123456789'


@pytest.mark.parametrize(
    "spelling",
    [
        SECRET.upper(),
        SECRET[:20],
        SECRET[-20:],
        json.dumps(json.dumps(SECRET)),
        "".join(f"\\u{ord(character):04x}" for character in SECRET),
        quote_plus(SECRET),
        html.escape(SECRET),
        repr(bytearray(SECRET.encode())).removeprefix("bytearray(b"),
        "\n".join(re.findall(".{1,9}", SECRET)),
    ],
)
def test_safe_line_has_no_secret_and_no_part_of_it_in_any_spelling(spelling):
    line = safe_line(f"rejected: {spelling}!", ["", SECRET])
    assert re.sub(r"\W", "", line) == "rejectedhidden"


def test_safe_line_is_one_short_printable_line():
    assert safe_line("a\x1b[31m red\r\n\udc80 line\u202e") == "a�[31m red � line�"
    assert safe_line(f"you sent {base64.b64encode(SECRET.encode()).decode()}") == "you sent ZXlKaGJH…"
    assert safe_line(f"you sent {base64.b64encode(SECRET[:24].encode()).decode()}") == "you sent ZXlKaGJH…"
    assert safe_line(f"you sent {'x' * 31}") == f"you sent {'x' * 31}"
    assert safe_line("INVALID_CLIENT_CREDENTIALS at /v2/posts/performance?x=1") == (
        "INVALID_CLIENT_CREDENTIALS at /v2/posts/performance?x=1"
    )
    assert len(safe_line("a b " * 10**6)) == 201


def test_safe_line_takes_no_longer_for_long_texts_and_secrets():
    started = time.process_time()
    for text in ("%41" * 10**7, "x" * 3 * 10**7, "&amp;" * 10**6):
        safe_line(text, ["x" * 60_000, "y%" * 30_000])
    assert time.process_time() - started < 5
