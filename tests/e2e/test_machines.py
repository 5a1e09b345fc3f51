"""Runs on two machines, which share no ledger, fetch at once under one rate limit."""

import pytest

from benchmarks.machines import run_machines

pytestmark = pytest.mark.e2e


def test_runs_of_two_machines_succeed_although_they_refuse_each_others_requests() -> None:
    result = run_machines(machines=2, processes=1, days=4, limit=(20, 1.0))
    assert {request.status for request in result.requests} <= {200, 429}
