"""One trial: fetch all days by the entrance of the ingest from the independent server, which deviates or fails."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

from later_reporting_dagster.client import ClientCredentials, LaterClient, LaterError, RateLimiter, RetryPolicy
from later_reporting_dagster.contract import API_VERSIONS
from later_reporting_dagster.ingest.fetch_days import DayFetch, FetchedDay, fetch_days
from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.lake.tables import POST_METRICS_DAILY, POSTS_PUBLISHED
from tests.conftest import expected_stored_row, partition_file
from tests.deviations import DAYS, INSTANCE_IDS, Deviation, PlainPosts
from tests.independent_server import CLIENT_ID, CLIENT_SECRET, METRICS, PAGED_METRICS, IndependentServer, Posts, Row
from tests.reliability.lake_comparison import read_partition, stored_key

TABLES = {table.name: table for table in (POSTS_PUBLISHED, POST_METRICS_DAILY)}


async def no_wait(_seconds: float) -> None:
    return


@dataclass
class Trial:
    """A fetch of all days by the entrance of the ingest, into a lake that may have some of them.

    Attributes:
        root: the lake; `before` is a copy of it as it was.
        days: what was fetched.
        error: what ended the fetch.
        max_attempts: of a request, without a wait.
        verifies: whether all lists of several pages are fetched twice.
    """

    deviation: Deviation
    posts: Posts
    version: str
    table_name: str
    root: Path
    before: Path | None = None
    days: list[FetchedDay] = field(default_factory=list)
    error: LaterError | None = None
    max_attempts: int = 2
    verifies: bool = False

    def fetch(self, days: Sequence[date] = DAYS, *, timeout_seconds: float = 10.0) -> IndependentServer:
        """Fetch days; return the server."""
        server = IndependentServer(
            self.posts,
            by_cursor=self.version == "cursor",
            read=self.deviation.read_target,
            rows=self.deviation.rows,
            change=self.deviation.change,
        )
        with server.running() as base_url:
            try:
                asyncio.run(self._fetch(base_url, days, timeout_seconds=timeout_seconds))
            except LaterError as error:
                self.error = error
        return server

    async def _fetch(self, base_url: str, days: Sequence[date], *, timeout_seconds: float) -> None:
        client = LaterClient(
            base_url=base_url,
            credentials=ClientCredentials(CLIENT_ID, CLIENT_SECRET),
            limiter=RateLimiter(requests=1_000_000, window_seconds=0.01),
            api_version=API_VERSIONS[self.version] if self.deviation.is_version_set else None,
            retry=RetryPolicy(max_attempts=self.max_attempts),
            verification_rates=dict.fromkeys(API_VERSIONS.values(), float(self.verifies)),
            timeout_seconds=timeout_seconds,
            sleep=no_wait,
        )
        wanted = DayFetch(
            table=TABLES[self.table_name],
            days=days,
            instance_ids=self.deviation.instance_ids,
            padding_days=self.deviation.padding_days,
        )
        async for day in fetch_days(wanted, client=client, lake=Lake(str(self.root))):
            self.days.append(day)  # noqa: PERF401 - an error ends the loop, and leaves the days before it

    def problems(self) -> str:
        """Return what is wrong with the files of each day and instance; an empty text if nothing is."""
        found: dict[str, list[str]] = {}
        for day, instance_id in product(DAYS, self.deviation.instance_ids or INSTANCE_IDS):
            if (problem := self._problem(day, instance_id)) is not None:
                found.setdefault(problem, []).append(f"{day:%m-%d} {instance_id}")
        return "\n".join(f"{len(files)} files, as of {files[0]}: {problem}" for problem, files in found.items())

    def _problem(self, day: date, instance_id: str) -> str | None:
        deviation, reason = self.deviation, self.failure(day, instance_id)
        stored, old = (self._stored(root, day, instance_id) for root in (self.root, self.before))
        content, old_content = (self._content(root, day, instance_id) for root in (self.root, self.before))
        rows = [deviation.means(row) for row in self.true_rows(day, instance_id)]
        if old and not stored:
            return "stored rows were replaced by none"
        may_fail = not rows and any(deviation.fails(*pair) for pair in product(DAYS, INSTANCE_IDS))
        if deviation.fails(day, instance_id) or (may_fail and reason):
            if not reason or content != old_content:
                return "replaced" if reason else "written, must fail"
            return None if deviation.why in reason else f"failed for another reason: {reason}"
        if deviation.empties(day, instance_id):
            return None if content == old_content or not (old or stored) else "neither kept nor without rows"
        if reason or stored is None:
            return f"failed: {reason}"
        expected = self._expected(rows, old or {})
        if stored.keys() != expected.keys():
            lost, more = len(expected.keys() - stored.keys()), len(stored.keys() - expected.keys())
            return f"{lost} of {len(expected)} rows lack, {more} are more"
        for key, row in expected.items():
            if differing := differences(row, stored[key]):
                return f"values differ: {differing}"
        return None

    def failure(self, day: date, instance_id: str) -> str | None:
        """Return why a file was not written; None if it was."""
        reasons = [each.failed[instance_id] for each in self.days if each.day == day and instance_id in each.failed]
        return str(self.error) if self.error else reasons[0] if reasons else None

    def _stored(self, root: Path | None, day: date, instance_id: str) -> dict[Any, Row] | None:
        rows = read_partition(root, (self.table_name, Partition(day, instance_id))) if root else None
        if rows is None:
            return None
        by_key = {stored_key(row): row for row in rows}
        assert len(by_key) == len(rows), "a key is stored twice"
        return by_key

    def _content(self, root: Path | None, day: date, instance_id: str) -> bytes | None:
        path = partition_file(root, self.table_name, day, instance_id) if root else None
        return path.read_bytes() if path and path.exists() else None

    def true_rows(self, day: date, instance_id: str) -> list[Row]:
        """Return the rows of a file in the form of the paged version; by post date, those of the UTC day."""
        by_post_date = self.table_name == POSTS_PUBLISHED.name
        in_utc = PlainPosts.at(0) if self.posts.hours_from_utc else self.posts
        rows = in_utc.published(day, day) if by_post_date else self.posts.reported(day, day)
        others = {*METRICS} - {*PAGED_METRICS}
        rows = [{name: value for name, value in row.items() if name not in others} for row in rows]
        return [row for row in rows if row["instanceId"] == instance_id]

    def _expected(self, rows: Sequence[Row], old: dict[Any, Row]) -> dict[Any, Row]:
        """Return the rows to store, by key. A value of `extra` that is not known is an ellipsis."""
        expected = {}
        for row in rows:
            stored = expected_stored_row(row)
            key = stored_key(stored)
            if not self.deviation.quarantined(row):
                expected[key] = stored
            elif self.deviation.keeps and key in old:
                expected[key] = old[key]
            for name, columns in self.deviation.nulls.items() if self.deviation.is_null(row) else ():
                stored |= dict.fromkeys(columns)
                if row.get(name) is not None:
                    stored["extra"] = {**(stored["extra"] or {}), name: ...}
        return expected


def differences(expected: Row, stored: Row) -> dict[str, Any]:
    """Return the columns whose values differ, and the expected fields that are not in `extra`."""
    extra = stored["extra"] or {}
    columns = {name: (it, stored[name]) for name, it in expected.items() if name != "extra" and it != stored[name]}
    lacking = [
        name
        for name, it in (expected["extra"] or {}).items()
        if name not in extra or (it is not ... and it != extra[name])
    ]
    return columns | ({"extra": lacking} if lacking else {})
