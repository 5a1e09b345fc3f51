"""Tests of the redaction of text from the server."""

import base64
import html
import json
import re
import time
from urllib.parse import quote_plus

import pytest

from later_reporting_dagster.contract.redaction import redact

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
def test_redact_removes_secrets_and_their_parts_in_any_spelling(spelling):
    line = redact(f"rejected: {spelling}!", ["", SECRET])
    assert re.sub(r"\W", "", line) == "rejectedhidden"


def test_redact_returns_one_short_printable_line():
    assert redact("a\x1b[31m red\r\n\udc80 line\u202e") == "a�[31m red � line�"
    assert redact(f"you sent {base64.b64encode(SECRET.encode()).decode()}") == "you sent ZXlKaGJH…"
    assert redact(f"you sent {base64.b64encode(SECRET[:24].encode()).decode()}") == "you sent ZXlKaGJH…"
    assert redact(f"you sent {'x' * 31}") == f"you sent {'x' * 31}"
    assert redact("INVALID_CLIENT_CREDENTIALS at /v2/posts/performance?x=1") == (
        "INVALID_CLIENT_CREDENTIALS at /v2/posts/performance?x=1"
    )
    assert len(redact("a b " * 10**6)) == 201


def test_redact_takes_no_longer_for_long_texts_and_secrets():
    started = time.process_time()
    for text in ("%41" * 10**7, "x" * 3 * 10**7, "&amp;" * 10**6):
        redact(text, ["x" * 60_000, "y%" * 30_000])
    assert time.process_time() - started < 5
