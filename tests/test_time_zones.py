"""Days are UTC days in every time zone of the machine, also on daylight saving changes and if its clock is set."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from starlette.requests import Request

from later_reporting_dagster.cli.main import main
from later_reporting_dagster.cli.options import yesterday as cli_yesterday
from later_reporting_dagster.client import LaterClient
from later_reporting_dagster.contract.days import due_day, newest_day
from later_reporting_dagster.defs.partitions import build_partitions_def
from later_reporting_dagster.rollups.rollup_tables import Cadence
from later_reporting_dagster.server.sandbox import World, create_app, running_server
from tests.conftest import NO_RATE_LIMIT, Service, files, sandbox_settings, stored_rows
from tests.defs.conftest import freeze_clock

# In the POSIX format, which needs no time zone database: hours west of UTC, and rules of daylight saving time.
ZONES = {
    "UTC": "UTC0",
    "America/Los_Angeles": "PST8PDT,M3.2.0,M11.1.0",
    "Asia/Kathmandu": "<+0545>-5:45",
    "Pacific/Kiritimati": "<+14>-14",
    "Europe/Berlin": "CET-1CEST,M3.5.0,M10.5.0/3",
}
# Days of 2026 on which daylight saving time begins or ends, in America and in Europe.
DST_CHANGES = [date(2026, 3, 8), date(2026, 3, 29), date(2026, 10, 25), date(2026, 11, 1)]
NOW = datetime(2026, 11, 10, 2, 30, tzinfo=UTC)
INSTANCE = "instance_000"


@contextmanager
def time_zone(name: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TZ", ZONES[name])
        time.tzset()
        try:
            yield
        finally:
            environment.undo()
            time.tzset()


@pytest.fixture(params=ZONES)
def zone(request: pytest.FixtureRequest) -> Iterator[str]:
    with time_zone(request.param):
        yield request.param


def stop_clocks(monkeypatch: pytest.MonkeyPatch, instant: datetime = NOW) -> None:
    """Stop the clock of all modules that read it in a backfill."""
    freeze_clock(monkeypatch, instant, "cli.options")
    # That of the client, which gives the times of requests.
    monkeypatch.setitem(LaterClient.__init__.__kwdefaults__, "clock", instant.timestamp)


@pytest.mark.parametrize("day", [*DST_CHANGES, *(day + timedelta(days=1) for day in DST_CHANGES)])
def test_newest_day_changes_at_midnight_utc(day: date, zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    before = day - timedelta(days=1)
    for instant, yesterday in [
        (midnight - timedelta(microseconds=1), before - timedelta(days=1)),
        (midnight, before),
        (midnight + timedelta(hours=23, minutes=59), before),
    ]:
        stop_clocks(monkeypatch, instant)
        local = instant.astimezone()
        assert cli_yesterday() == newest_day(local) == yesterday
        assert due_day(local, due_hour_utc=23) == yesterday - timedelta(days=instant.hour < 23)
        assert build_partitions_def(Cadence.DAY, date(2026, 1, 1)).get_partition_keys(current_time=local)[-1] == str(
            yesterday
        )


# Runs over days on which daylight saving time begins or ends.


def move_to_day_bounds(_request: Request, document: Any) -> Any:
    """Move posts to the first or last microsecond of their day, with offsets of other time zones."""
    for post in document["data"]:
        day = datetime.fromisoformat(f"{post['postDate'][:10]}T00:00:00+00:00")
        if post["postId"] % 3 == 0:
            last = day + timedelta(days=1) - timedelta(microseconds=1)
            post["postDate"] = last.astimezone(timezone(timedelta(hours=5, minutes=45))).isoformat()
        elif post["postId"] % 3 == 1:
            post["postDate"] = day.astimezone(timezone(timedelta(hours=-8))).isoformat()
    return document


@pytest.fixture
def lake_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dagster_home: Path) -> Iterator[Callable[[str], Path]]:
    """A function that backfills all days in a time zone into a new lake, from posts at the bounds of days."""
    world = World(first_day=date(2026, 10, 1), last_day=date(2026, 11, 9), seed=1, instances=1, posts_per_day=4)
    service = Service(app=create_app(world, options=NO_RATE_LIMIT), transform=move_to_day_bounds)

    def backfill(zone: str) -> Path:
        lake = tmp_path / zone.replace("/", "-")
        with time_zone(zone):
            monkeypatch.setenv("LATER_LAKE_ROOT", str(lake))
            days = ["--start", str(BACKFILLED[0]), "--end", str(BACKFILLED[-1])]
            result = CliRunner().invoke(main, ["backfill", "--asset", "later/posts_published", *days])
        assert result.exit_code == 0, result.output
        return lake

    stop_clocks(monkeypatch)
    with running_server(service) as base_url:
        for name, value in sandbox_settings(base_url, lake_root="").items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("LATER_START_DATE", "2026-10-01")
        yield backfill


# Daylight saving time ends in Europe and in America.
BACKFILLED = [date(2026, 10, 24) + timedelta(days=number) for number in range(10)]


def test_backfill_over_dst_changes_writes_the_same_bytes_in_every_zone(lake_of: Callable[[str], Path]) -> None:
    lake = lake_of("UTC")
    rows = {day: stored_rows(lake, "posts_published", day, INSTANCE) for day in BACKFILLED}
    assert all({row["post_date"].date() for row in of_day} <= {day} for day, of_day in rows.items())
    times = [row["post_date"].time() for of_day in rows.values() for row in of_day]
    assert (min(times), max(times)) == (datetime.min.time(), datetime.max.time())
    written = {path: content for path, (content, _) in files(lake).items()}
    assert len(written) == len(BACKFILLED)
    assert all(b"2026-11-10T02:30:00.000+00:00" in content for content in written.values())
    for zone in ZONES.keys() - {"UTC"}:
        assert {path: content for path, (content, _) in files(lake_of(zone)).items()} == written, zone
