"""A problem is read from whatever an error answer holds, and never makes a second error of it."""

import base64
import html
import json
import re
import time
from urllib.parse import quote_plus

import pytest

from later_reporting_dagster.contract import Problem, excerpt
from later_reporting_dagster.contract.enums import ProblemType


def test_a_problem_document():
    problem = Problem.from_body(b'{"type": "ANL_00422", "title": "Bad sort", "detail": "likes", "more": 1}')
    assert problem == Problem(type="ANL_00422", title="Bad sort", detail="likes")
    assert problem.type == ProblemType.INVALID_SORT
    assert str(problem) == "ANL_00422 Bad sort likes"


@pytest.mark.parametrize("body", [b"", b"Service Unavailable", b"[]", b"\xff", b'{"type": 5}', b'{"x":' + b"[" * 10**5])
def test_anything_else_reads_as_an_empty_problem(body):
    assert Problem.from_body(body) == Problem()
    assert str(Problem.from_body(body)) == "no problem document"


SECRET = 'eyJhbGci.s3cr3t "Zq7"/\\+&<%41>-0123456789'


@pytest.mark.parametrize(
    "said",
    [
        SECRET.upper(),
        SECRET[:20],
        SECRET[-20:],
        json.dumps(json.dumps(SECRET)),
        "".join(f"\\u{ord(each):04x}" for each in SECRET),
        quote_plus(SECRET),
        html.escape(SECRET),
        repr(bytearray(SECRET.encode())).removeprefix("bytearray(b"),
        "\n".join(re.findall(".{1,9}", SECRET)),
    ],
)
def test_an_excerpt_hides_a_secret_and_its_parts_however_they_are_spelled(said):
    shown = excerpt(f"refused: {said}!", ["", SECRET])
    assert re.sub(r"\W", "", shown) == "refusedhidden"


def test_an_excerpt_is_one_short_printable_line():
    assert excerpt("a\x1b[31m red\r\n\udc80 line\u202e") == "a�[31m red � line�"
    assert excerpt(f"you sent {base64.b64encode(SECRET.encode()).decode()}") == "you sent ZXlKaGJH…"
    assert excerpt("INVALID_CLIENT_CREDENTIALS at /v2/posts/performance?x=1") == (
        "INVALID_CLIENT_CREDENTIALS at /v2/posts/performance?x=1"
    )
    assert len(excerpt("a b " * 10**6)) == 201


def test_an_excerpt_takes_no_longer_for_a_long_text_or_secret():
    started = time.process_time()
    for text in ("%41" * 10**7, "x" * 3 * 10**7, "&amp;" * 10**6):
        excerpt(text, ["x" * 60_000, "y%" * 30_000])
    assert time.process_time() - started < 5
