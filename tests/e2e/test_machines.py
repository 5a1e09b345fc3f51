"""Fetches on two machines at once, each of two processes, which refuse each other's requests."""

import pytest

from benchmarks.measure import measure
from benchmarks.sandbox_server import running_sandbox_process
from benchmarks.workloads import eight_instances, newest_partitions


@pytest.mark.e2e
def test_fetches_of_two_machines_write_all_rows_under_one_limit() -> None:
    ranges = [newest_partitions(40, range(first, 8, 4)) for first in range(4)]
    with running_sandbox_process(**eight_instances(ranges[0].start), requests=10, window=1.0) as sandbox:
        least = sandbox.least(ranges, date_basis="post_date")
        result = measure("library, paced", *ranges, sandbox=sandbox, date_basis="post_date", machines=2)
    assert result.requests - result.rejected >= least.requests
