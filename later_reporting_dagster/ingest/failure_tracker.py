"""Decide from the failures of a run which instances to stop requesting, and when to stop the whole run. No I/O."""

from collections import Counter

from later_reporting_dagster.client import LaterError
from later_reporting_dagster.contract import PostPerformanceQuery

# An instance is not requested again after this many consecutive failures of queries for it alone, each after all
# retries.
MAX_INSTANCE_FAILURES = 2
# The run stops once queries for this many different instances have failed without a success in between.
OUTAGE_INSTANCES = 5


class FailureTracker:
    """Counts consecutive failures per instance.

    Attributes:
        stopped_by: the error that stopped the run, such as rejected credentials or an outage; None while it goes on.
        abandoned: instances that are not requested any more, each with the error.
    """

    def __init__(self) -> None:
        self.stopped_by: LaterError | None = None
        self.abandoned: dict[str, LaterError] = {}
        self._consecutive: Counter[str] = Counter()
        self._failed_since_success: set[str] = set()

    def record_success(self, query: PostPerformanceQuery) -> None:
        """Reset the counts of the query's instances."""
        self._failed_since_success.clear()
        for instance_id in query.instance_ids:
            self._consecutive.pop(instance_id, None)

    def record_failure(self, query: PostPerformanceQuery, error: LaterError) -> None:
        """Count a failure if the query is for a single instance; otherwise any of its instances may be the cause."""
        if len(query.instance_ids) != 1:
            return
        (instance_id,) = query.instance_ids
        self._consecutive[instance_id] += 1
        if self._consecutive[instance_id] >= MAX_INSTANCE_FAILURES:
            self.abandoned[instance_id] = error
        self._failed_since_success.add(instance_id)
        if len(self._failed_since_success) >= OUTAGE_INSTANCES:
            self.stopped_by = error

    def record_rejection(self, query: PostPerformanceQuery, error: LaterError) -> None:
        """Abandon the instance of a query that the API rejects, if it is the only one."""
        if len(query.instance_ids) == 1:
            self.abandoned[query.instance_ids[0]] = error
