"""The failure tracker abandons instances that keep failing, and stops the run in an outage."""

from datetime import date

from later_reporting_dagster.client import RetriesExhausted
from later_reporting_dagster.contract import PerformanceQuery
from later_reporting_dagster.ingest.ingest import MAX_INSTANCE_FAILURES, FailureTracker

DAY = date(2024, 3, 1)
ERROR = RetriesExhausted("HTTP 503")


def query(*instance_ids: str) -> PerformanceQuery:
    return PerformanceQuery(start_date=DAY, end_date=DAY, instance_ids=instance_ids)


def test_tracker_counts_only_failures_since_the_last_success() -> None:
    failures = FailureTracker()
    for _ in range(3 * MAX_INSTANCE_FAILURES):
        failures.record_failure(query("a"), ERROR)
        failures.record_success(query("a", "b"))
    assert failures.abandoned == {}


def test_tracker_does_not_count_failures_of_several_instances() -> None:
    failures = FailureTracker()
    for _ in range(3 * MAX_INSTANCE_FAILURES):
        failures.record_failure(query("a", "b"), ERROR)
        failures.record_rejection(query("a", "b"), ERROR)
    assert (failures.abandoned, failures.stopped_by) == ({}, None)
