"""Each deviation of the real API costs what it must, and no stored file becomes one without rows."""

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from later_reporting_dagster.client import ClientCredentials, LaterClient, LaterError, RateLimiter, RetryPolicy
from later_reporting_dagster.contract import API_VERSIONS
from later_reporting_dagster.ingest.fetch_days import DayFetch, FetchedDay, fetch_days
from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.lake.tables import POST_METRICS_DAILY, POSTS_PUBLISHED
from tests.conftest import expected_stored_row, partition_file
from tests.deviations import (
    BAD_DAY,
    DAYS,
    DEVIATIONS,
    INSTANCE_IDS,
    Deviation,
    PlainPosts,
    asks_for_day,
    asks_for_instance,
    is_bad_day,
    is_bad_instance,
    problem_as_success,
    refused,
    silent,
    when,
)
from tests.independent_server import (
    CLIENT_ID,
    CLIENT_SECRET,
    METRICS,
    PAGED_METRICS,
    IndependentServer,
    Posts,
    Reply,
    Row,
)
from tests.reliability.lake_comparison import read_partition, stored_key

pytestmark = pytest.mark.faults

TABLES = {table.name: table for table in (POSTS_PUBLISHED, POST_METRICS_DAILY)}
STORED_DAYS = DAYS[:3]
"""The days that were fetched before the API deviates."""


async def no_wait(_seconds: float) -> None:
    return


@dataclass
class Trial:
    """A fetch of all days by the entrance of the ingest, into a lake that may have some of them.

    Attributes:
        root: the lake; `before` is a copy of it as it was.
        days: what was fetched.
        error: what ended the fetch.
    """

    deviation: Deviation
    posts: Posts
    version: str
    table_name: str
    root: Path
    before: Path | None = None
    days: list[FetchedDay] = field(default_factory=list)
    error: LaterError | None = None

    def fetch(self, days: Sequence[date] = DAYS, *, timeout_seconds: float = 10.0) -> IndependentServer:
        """Fetch days, with two attempts without a wait; return the server."""
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
            retry=RetryPolicy(max_attempts=2),
            timeout_seconds=timeout_seconds,
            sleep=no_wait,
        )
        wanted = DayFetch(
            table=TABLES[self.table_name],
            days=days,
            instance_ids=self.deviation.instance_ids,
            widen_days=self.deviation.widen_days,
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
        deviation, reason = self.deviation, self._failure(day, instance_id)
        stored, old = (self._stored(root, day, instance_id) for root in (self.root, self.before))
        content, old_content = (self._content(root, day, instance_id) for root in (self.root, self.before))
        rows = [deviation.means(row) for row in self._true_rows(day, instance_id)]
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

    def _failure(self, day: date, instance_id: str) -> str | None:
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

    def _true_rows(self, day: date, instance_id: str) -> list[Row]:
        """Return the rows of a file in the form of the paged version; by post date, those of the UTC day."""
        by_post_date = self.table_name == POSTS_PUBLISHED.name
        rows = PlainPosts.at(0).published(day, day) if by_post_date else self.posts.reported(day, day)
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


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with the first days, when posts had other metrics."""
    root = tmp_path_factory.mktemp("before")
    for table_name in TABLES:
        trial = Trial(Deviation(), PlainPosts(restated=True), "paged", table_name, root)
        trial.fetch(STORED_DAYS)
        assert not trial.error
        assert not any(day.failed for day in trial.days)
    return root


@pytest.fixture
def lake(before: Path, tmp_path: Path) -> Path:
    """A copy of that lake."""
    return Path(shutil.copytree(before, tmp_path / "lake"))


CASES = [
    (name, version, table_name)
    for name, deviation in DEVIATIONS.items()
    for version in deviation.versions
    for table_name in deviation.tables
]

both_tables = pytest.mark.parametrize("table_name", TABLES)
both_versions = pytest.mark.parametrize("version", API_VERSIONS)


@pytest.mark.parametrize(("name", "version", "table_name"), [pytest.param(*case, id="-".join(case)) for case in CASES])
def test_deviation_costs_what_it_must(name: str, version: str, table_name: str, before: Path, lake: Path) -> None:
    deviation = DEVIATIONS[name]
    trial = Trial(deviation, PlainPosts.at(deviation.hours_from_utc), version, table_name, lake, before)
    trial.fetch()
    assert not (problems := trial.problems()), problems


FAILURES: dict[str, Callable[[Reply], Reply]] = {
    **{str(status): refused(status) for status in (400, 403, 404, 409, 410, 422, 451, 500)},
    "time-out": silent,
    "problem in a 200": problem_as_success,
}


@both_tables
@both_versions
@pytest.mark.parametrize("of_what", ["day", "instance"])
@pytest.mark.parametrize("failure", FAILURES)
def test_failing_day_or_instance_costs_its_own_files(
    failure: str, of_what: str, version: str, table_name: str, before: Path, lake: Path
) -> None:
    concerns, fails = (asks_for_day, is_bad_day) if of_what == "day" else (asks_for_instance, is_bad_instance)
    deviation = Deviation(change=when(concerns, FAILURES[failure]), fails=fails)
    trial = Trial(deviation, PlainPosts.at(0), version, table_name, lake, before)
    trial.fetch(timeout_seconds=1.0 if failure == "time-out" else 10.0)
    assert not (problems := trial.problems()), problems


@given(case=st.sampled_from(CASES), rows=st.integers(1, 30))
@example(case=("counts have units", "paged", POSTS_PUBLISHED.name), rows=1)
def test_no_deviation_replaces_stored_rows_by_none(case: tuple[str, str, str], rows: int) -> None:
    name, version, table_name = case
    deviation = DEVIATIONS[name]
    with tempfile.TemporaryDirectory() as folder:
        root, hours = Path(folder), deviation.hours_from_utc
        Trial(Deviation(), PlainPosts(rows=rows, restated=True), version, table_name, root).fetch([BAD_DAY])
        posts = PlainPosts(rows=rows, hours_from_utc=hours)
        Trial(deviation, posts, version, table_name, root).fetch([BAD_DAY])
        stored = {name: read_partition(root, (table_name, Partition(BAD_DAY, name))) for name in INSTANCE_IDS}
    assert {name: bool(of_instance) for name, of_instance in stored.items()} == dict.fromkeys(INSTANCE_IDS, True)


@both_versions
def test_wider_ranges_take_few_more_requests(version: str, tmp_path: Path) -> None:
    days = [date(2023, 3, 1) + timedelta(days=offset) for offset in range(365)]
    requests = []
    for widen_days in (0, 1):
        posts = Posts(first_day=days[0] - timedelta(days=2), days=369, instance_ids=INSTANCE_IDS, seed=1, most=8)
        posts.published = cache(posts.published)  # type: ignore[method-assign]
        posts.hours_from_utc = -5 * widen_days
        trial = Trial(
            Deviation(widen_days=widen_days), posts, version, POSTS_PUBLISHED.name, tmp_path / str(widen_days)
        )
        requests.append(trial.fetch(days).asked.total())
        assert not any(day.failed for day in trial.days)
        assert len(trial.days) == len(days)
    assert requests[0] > 50
    assert requests[1] <= 1.1 * requests[0]
