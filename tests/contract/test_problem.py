"""A problem is read from whatever an error answer holds, and never makes a second error of it."""

import pytest

from later_reporting_dagster.contract import Problem
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
