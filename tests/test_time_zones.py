"""Days are UTC days, wherever the machine is and whatever it does to its clock: a shifted hour moves no post."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from later_reporting_dagster.cli import main
from later_reporting_dagster.cli.main import _yesterday
from later_reporting_dagster.client import RateLimiter
from later_reporting_dagster.client.responses import retry_after, server_time_in
from later_reporting_dagster.contract.days import days_between, due_day, newest_day, restated_days
from later_reporting_dagster.contract.page import page_from_body
from later_reporting_dagster.definitions import definitions
from later_reporting_dagster.defs.checks import NEWEST_DUE_DAY
from later_reporting_dagster.defs.partitions import partitions_of, range_tags
from later_reporting_dagster.defs.settings import LoadSettings
from later_reporting_dagster.rollups.periods import Span
from later_reporting_dagster.sandbox import World, create_app, running_sandbox
from tests.conftest import UNHURRIED, Row, Service, Truth, files, settings_of, stored_rows
from tests.defs.conftest import stop_clock

# As POSIX writes them, so that no time zone database is needed: how far west of Greenwich, and when the clock changes.
ZONES = {
    "UTC": "UTC0",
    "America/Los_Angeles": "PST8PDT,M3.2.0,M11.1.0",
    "Asia/Kathmandu": "<+0545>-5:45",
    "Pacific/Kiritimati": "<+14>-14",
    "Europe/Berlin": "CET-1CEST,M3.5.0,M10.5.0/3",
}
# The days of 2026 on which a clock changes, in America and in Europe.
CHANGES = [date(2026, 3, 8), date(2026, 3, 29), date(2026, 10, 25), date(2026, 11, 1)]
NOW = datetime(2026, 11, 10, 2, 30, tzinfo=UTC)
INSTANCE = "instance_000"


@contextmanager
def machine_in(zone: str) -> Iterator[None]:
    """This process as it would run in a zone."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TZ", ZONES[zone])
        time.tzset()
        try:
            yield
        finally:
            environment.undo()
            time.tzset()


@pytest.fixture(params=ZONES)
def zone(request: pytest.FixtureRequest) -> Iterator[str]:
    with machine_in(request.param):
        yield request.param


def stop_clocks(monkeypatch: pytest.MonkeyPatch, instant: datetime = NOW) -> None:
    stop_clock(monkeypatch, instant, "cli.main", "ingest.ingest", "defs.partitions")


@pytest.mark.parametrize("day", [*CHANGES, *(day + timedelta(days=1) for day in CHANGES)])
def test_yesterday_changes_at_midnight_utc(day: date, zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    before = day - timedelta(days=1)
    for instant, yesterday in [
        (midnight - timedelta(microseconds=1), before - timedelta(days=1)),
        (midnight, before),
        (midnight + timedelta(hours=23, minutes=59), before),
    ]:
        stop_clocks(monkeypatch, instant)
        local = instant.astimezone()
        assert _yesterday() == newest_day(local) == yesterday
        restated = restated_days(newest_day(local), start_date=date(2024, 1, 1), restate_days=28)
        assert restated == days_between(yesterday - timedelta(days=27), yesterday)
        assert partitions_of(Span.DAY, date(2026, 1, 1)).get_partition_keys(current_time=local)[-1] == str(yesterday)


@pytest.mark.parametrize("due_hour_utc", [0, 12, 23])
def test_a_day_is_due_at_its_hour_of_utc(due_hour_utc: int, zone: str) -> None:
    for day in CHANGES:
        due = datetime(day.year, day.month, day.day, due_hour_utc, tzinfo=UTC)
        assert due_day(due.astimezone(), due_hour_utc=due_hour_utc) == day - timedelta(days=1)
        a_little_earlier = (due - timedelta(microseconds=1)).astimezone()
        assert due_day(a_little_earlier, due_hour_utc=due_hour_utc) == day - timedelta(days=2)


def test_partitions_are_each_day_once_of_24_hours(zone: str) -> None:
    days = partitions_of(Span.DAY, date(2026, 1, 1))
    keys = days.get_partition_keys(current_time=NOW.astimezone())
    assert keys == [
        str(date(2026, 1, 1) + timedelta(days=number)) for number in range((NOW.date() - date(2026, 1, 1)).days)
    ]
    for key in map(str, CHANGES):
        window = days.time_window_for_partition_key(key)
        assert window.start == datetime.fromisoformat(f"{key}T00:00:00+00:00")
        assert window.end - window.start == timedelta(days=1)


def test_what_runs_by_the_clock_runs_by_that_of_utc(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_START_DATE", "2026-03-08")
    settings = LoadSettings.from_environment()
    assert settings.start_date == date(2026, 3, 8)
    defs = definitions(settings)
    schedule = defs.resolve_schedule_def("later_posts_daily")
    assert schedule.execution_timezone == "UTC"
    # The tick as the daemon has it: 06:00 UTC of the day after the clock changed.
    tick = datetime(2026, 3, 9, 6, tzinfo=UTC).astimezone()
    with dg.build_schedule_context(scheduled_execution_time=tick) as context:
        (request,) = schedule.evaluate_tick(context).run_requests or []
    assert request.tags.items() >= range_tags(date(2026, 3, 8), date(2026, 3, 8)).items()
    graph = defs.resolve_asset_graph()
    zones = {
        condition.cron_timezone
        for key in graph.asset_check_keys
        if key.name == NEWEST_DUE_DAY and (condition := graph.get(key).automation_condition)
    }
    assert zones == {"UTC"}


@given(st.sampled_from(CHANGES), st.sampled_from(["first", "last"]), st.integers(-14 * 60, 14 * 60))
def test_a_post_is_of_its_own_utc_day_to_the_microsecond(day: date, edge: str, offset: int) -> None:
    instant = datetime(day.year, day.month, day.day, tzinfo=UTC)
    if edge == "last":
        instant += timedelta(days=1) - timedelta(microseconds=1)
    written = instant.astimezone(timezone(timedelta(minutes=offset))).isoformat()
    for zone in ZONES:
        with machine_in(zone):
            (post,) = page_from_body(body_of(written)).posts
        assert (post.post_date, post.post_date.date()) == (instant, day)


def body_of(post_date: str) -> bytes:
    post = f'{{"instanceId": "a", "campaignId": 1, "postId": 1, "postDate": "{post_date}"}}'
    return (
        f'{{"data": [{post}], "pagination": {{"page": 1, "pageSize": 1, "totalItems": 1, "totalPages": 1}}}}'.encode()
    )


def test_the_times_of_an_answer_are_utc(zone: str) -> None:
    answered, until = "Sun, 08 Mar 2026 09:59:30 GMT", "Sun, 08 Mar 2026 10:00:30 GMT"
    assert server_time_in({"date": answered}) == datetime(2026, 3, 8, 9, 59, 30, tzinfo=UTC)
    assert retry_after({"retry-after": until, "date": answered}, now=0.0) == 60.0
    assert retry_after({"retry-after": until}, now=datetime(2026, 3, 8, 10, tzinfo=UTC).timestamp()) == 30.0


# A run over days on which the clock changes.


def at_the_edges(_request: Request, document: Any) -> Any:
    """Posts of the first and last microsecond of their day, as servers elsewhere write them."""
    for post in document["data"]:
        day = datetime.fromisoformat(f"{post['postDate'][:10]}T00:00:00+00:00")
        if post["postId"] % 3 == 0:
            last = day + timedelta(days=1) - timedelta(microseconds=1)
            post["postDate"] = last.astimezone(timezone(timedelta(hours=5, minutes=45))).isoformat()
        elif post["postId"] % 3 == 1:
            post["postDate"] = day.astimezone(timezone(timedelta(hours=-8))).isoformat()
    return document


@dataclass(frozen=True)
class Landing:
    """Runs a range by the command, in a zone, at an instant that is the same for all."""

    directory: Path
    truth: Truth

    def lake(self, zone: str, start: date, end: date) -> Path:
        lake = self.directory / zone.replace("/", "-") / str(start)
        with pytest.MonkeyPatch.context() as environment, machine_in(zone):
            stop_clocks(environment)
            environment.setenv("LATER_LAKE_ROOT", str(lake))
            span = ["--start", str(start), "--end", str(end)]
            result = CliRunner().invoke(main, ["backfill", "--asset", "later/posts_published", *span])
        assert result.exit_code == 0, result.output
        return lake


@pytest.fixture(scope="module")
def landing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Landing]:
    directory = tmp_path_factory.mktemp("zones")
    (directory / "dagster-home").mkdir()
    (directory / "dagster-home" / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    world = World(first_day=date(2026, 2, 1), last_day=date(2026, 11, 9), seed=1, instances=1, posts_per_day=4)
    service = Service(app=create_app(world, options=UNHURRIED), edited=at_the_edges)
    with running_sandbox(service) as base_url, pytest.MonkeyPatch.context() as environment:
        for name, value in {
            **settings_of(base_url, lake_root=str(directory / "lake")),
            "DAGSTER_HOME": str(directory / "dagster-home"),
            "LATER_START_DATE": "2026-03-01",
        }.items():
            environment.setenv(name, value)
        environment.setattr(
            "later_reporting_dagster.cli.in_process_runs.defs", definitions(LoadSettings.from_environment())
        )
        with httpx.Client(base_url=base_url) as client:
            yield Landing(directory, Truth(client))


@pytest.mark.parametrize(
    ("start", "end", "zones"),
    [
        (date(2026, 3, 7), date(2026, 3, 9), ["America/Los_Angeles", "Pacific/Kiritimati"]),
        (date(2026, 3, 28), date(2026, 3, 30), ["Europe/Berlin"]),
        (date(2026, 10, 24), date(2026, 11, 2), ["America/Los_Angeles", "Asia/Kathmandu", "Europe/Berlin"]),
    ],
)
def test_a_range_over_a_change_of_clocks_lands_the_same_bytes_everywhere(
    start: date, end: date, zones: list[str], landing: Landing
) -> None:
    lake = landing.lake("UTC", start, end)
    days = [start + timedelta(days=number) for number in range((end - start).days + 1)]
    for day in days:
        rows = stored_rows(lake, "posts_published", day, INSTANCE)
        assert rows == landing.truth.partition("post_date", day, INSTANCE)
        assert {row["post_date"].date() for row in rows} <= {day}
    assert edges(lake) == {datetime.min.time(), datetime.max.time()}
    landed = {path: content for path, (content, _) in files(lake).items()}
    assert len(landed) == len(days)
    assert all(b"2026-11-10T02:30:00.000+00:00" in content for content in landed.values())
    for zone in zones:
        there = landing.lake(zone, start, end)
        assert {path: content for path, (content, _) in files(there).items()} == landed, zone


def edges(lake: Path) -> set[Any]:
    """The times of day, first and last, of all that landed."""
    rows: list[Row] = [row for file in lake.rglob("*.parquet") for row in pq.ParquetFile(file).read().to_pylist()]
    times = [row["post_date"].time() for row in rows]
    return {min(times), max(times)}


# A clock that is set.


class SetClock:
    """A clock that sleeping moves, and that somebody sets while the first sleep lasts."""

    def __init__(self, step: float) -> None:
        self.now = 1_800_000_000.0
        self.step = step
        self.slept = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.now += seconds + self.step
        self.step = 0.0


@pytest.mark.parametrize("step", [-86_400.0, -3600.0, -600.0, -30.0, -0.001, 0.0, 0.001, 30.0, 3600.0])
def test_a_clock_that_is_set_during_a_wait_does_not_prolong_it_by_more_than_a_window(step: float) -> None:
    clock = SetClock(step)
    limiter = RateLimiter(requests=2, window_seconds=60.0, clock=clock, sleep=clock.sleep)

    async def turns() -> None:
        for _ in range(3):
            await limiter.acquire()

    asyncio.run(turns())
    window = 60.5  # with half a second for jitter
    assert window <= clock.slept <= 2 * window


@pytest.mark.parametrize("step", [-86_400.0, -3600.0, 3600.0])
def test_requests_after_a_clock_was_set_keep_to_the_limit_again(step: float) -> None:
    clock = SetClock(step)
    limiter = RateLimiter(requests=2, window_seconds=60.0, clock=clock, sleep=clock.sleep)
    turns: list[float] = []

    async def take() -> None:
        for _ in range(9):
            await limiter.acquire()
            turns.append(clock.slept)

    asyncio.run(take())
    after = turns[3:]
    assert all(later - sooner >= 60.0 for sooner, later in zip(after, after[2:], strict=False))
    assert turns[-1] <= 5 * 62.0
