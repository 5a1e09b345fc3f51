"""Tests of problem details: any error body parses, and never raises a second error."""

import pytest

from later_reporting_dagster.contract import ProblemDetails
from later_reporting_dagster.contract.enums import ProblemType


def test_problem_details_are_parsed():
    problem = ProblemDetails.from_body(b'{"type": "ANL_00422", "title": "Bad sort", "detail": "likes", "more": 1}')
    assert problem == ProblemDetails(type="ANL_00422", title="Bad sort", detail="likes")
    assert problem.type == ProblemType.INVALID_SORT
    assert str(problem) == "ANL_00422 Bad sort likes"


@pytest.mark.parametrize("body", [b"", b"Service Unavailable", b"[]", b"\xff", b'{"type": 5}', b'{"x":' + b"[" * 10**5])
def test_problem_details_of_another_body_are_empty(body):
    assert ProblemDetails.from_body(body) == ProblemDetails()
    assert str(ProblemDetails.from_body(body)) == "without problem details"
