"""A world that changes while it is fetched every day: posts that come late, and are restated, deleted and re-dated."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from click.testing import CliRunner
from dagster._core.definitions.sensor_definition import SensorExecutionData

from later_reporting_dagster.cli.main import main
from later_reporting_dagster.client import LaterClient
from later_reporting_dagster.contract.days import parse_day_ranges
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.lake import Partition, schema_of
from later_reporting_dagster.lake.tables import INSTANCES_TABLE, PERIODS_TABLES, POSTS_NAMES, RAW_NAMES
from later_reporting_dagster.quality.instances import INSTANCES_SCHEMA
from later_reporting_dagster.rollups.rollup_tables import TABLES
from tests.conftest import sandbox_settings
from tests.defs.conftest import Project, assert_success, freeze_clock
from tests.defs.test_missing_files import execute, posts_requests, tick
from tests.defs.test_old_days import old_days
from tests.independent_server import CLIENT_ID, CLIENT_SECRET, METRICS, PAGED_METRICS, IndependentServer, Posts
from tests.reliability.lake_comparison import compare_rows, read_partition

PUBLISHED, NOT_STALE = "posts_published", "no_file_is_stale"
START, FIRST_RUN = date(2024, 2, 1), date(2024, 4, 11)  # 70 days
NORTH, SOUTH = "north", "007"
# Old days are fetched again at the ages of 7, 10, 15, 22, 33, 50 and 75 days.
LOOKBACK_DAYS = 7
DAY = timedelta(days=1)
TODAY = FIRST_RUN + DAY
IDS = pa.schema({"post_id": pa.int64()})
(POSTS_TABLE,) = [table for table in TABLES if table.name == "posts"]


@dataclass
class World:
    """The project with the posts that the server has, and the day on which its clock stands."""

    project: Project
    posts: Posts
    monkeypatch: pytest.MonkeyPatch
    today: date = FIRST_RUN

    def set_clock(self, today: date) -> datetime:
        self.today = today
        now = datetime(today.year, today.month, today.day, 13, tzinfo=UTC)
        freeze_clock(self.monkeypatch, now, "ingest.slice_writer")
        self.monkeypatch.setitem(LaterClient.__init__.__kwdefaults__, "clock", now.timestamp)  # type: ignore[index]
        return now

    def fetch_history(self) -> None:
        self.set_clock(FIRST_RUN)
        assert_success(self.project.run_job("later_posts", tags=range_tags(START, FIRST_RUN - DAY)))
        self.roll_up()

    def fetch_daily(self, today: date) -> list[str]:
        """Do what the schedule and the automation do on a day; return the old days that were fetched."""
        request = self.project.scheduled(self.set_clock(today))
        assert_success(self.project.execute(request))
        self.roll_up()
        return old_days(request, names=POSTS_NAMES)

    def tick(self) -> SensorExecutionData:
        return tick(self.project)

    def pairs(self, data: SensorExecutionData) -> dict[str, list[str]]:
        """Return what a tick requests of `posts_published`."""
        ops = [request.run_config["ops"][f"later__{PUBLISHED}"] for request in posts_requests(data)]
        found: list[dict[str, list[str]]] = [op["config"]["days_by_instance"] for op in ops]
        return {name: days for pairs in found for name, days in pairs.items()}

    def execute(self, data: SensorExecutionData) -> None:
        assert_success(execute(self.project, data))
        self.roll_up()

    def roll_up(self) -> None:
        """Update the table of posts, and `coverage`, as automation does."""
        assert_success(self.project.run("posts"))
        self.project.update_coverage()

    def check(self) -> tuple[bool, str, Any]:
        """Return the newest result of the check, which the step of `posts` evaluates, and its withdrawn posts."""
        key = dg.AssetCheckKey(dg.AssetKey(["later", PUBLISHED]), NOT_STALE)
        (record,) = self.project.instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
        assert record.event is not None
        assert record.event.dagster_event is not None
        result = record.event.dagster_event.asset_check_evaluation_data
        assert (passed := self.project.check((PUBLISHED, NOT_STALE))[PUBLISHED, NOT_STALE])
        assert (passed.passed, passed.description) == (result.passed, result.description)
        return result.passed, str(result.description), result.metadata["withdrawn"].value

    def is_stored(self, day: date, name: str) -> bool:
        """Return whether the file of `posts_published` has what the server has."""
        left_out = {*METRICS} - {*PAGED_METRICS}
        rows = [row for row in self.posts.published(day, day) if row["instanceId"] == name]
        expected = [{key: value for key, value in row.items() if key not in left_out} for row in rows]
        stored = read_partition(self.project.root, (PUBLISHED, Partition(day, name)))
        assert stored is not None
        return not compare_rows(stored, required=expected, allowed=expected)

    def days_of(self, post_id: int) -> list[date]:
        """Return the days of `posts_published` with a post."""
        rows = self.project.lake.read(PUBLISHED, self.project.lake.partitions(PUBLISHED), schema=IDS, with_date=True)
        return sorted({row["date"] for row in rows.to_pylist() if row["post_id"] == post_id})

    def rolled_up(self, post_id: int) -> list[dict[str, Any]]:
        """Return the rows of a post in the table of posts, rolled up anew."""
        self.roll_up()
        rows = self.project.lake.read_table("posts", schema=schema_of(POSTS_TABLE.columns))
        assert rows is not None
        return [row for row in rows.to_pylist() if row["post_id"] == post_id]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Ten days of posts before the start date, and 70 that were fetched."""
    posts = Posts(
        first_day=START - 10 * DAY, days=130, instance_ids=(NORTH, SOUTH), seed=3, most=4, campaign_ids=range(1, 4)
    )
    with IndependentServer(posts, by_cursor=False).running() as base_url, dg.DagsterInstance.ephemeral() as instance:
        settings = {**sandbox_settings(base_url, lake_root=str(tmp_path / "lake")), "LATER_API_VERSION": "paged"}
        settings |= {"LATER_START_DATE": str(START), "LATER_LOOKBACK_DAYS": str(LOOKBACK_DAYS)}
        without_totals = ",".join(
            f"-{name}" for name in ("campaigns", *PERIODS_TABLES, *({*RAW_NAMES} - {*POSTS_NAMES}))
        )
        settings |= {"LATER_MAX_ROW_LOSS_PERCENT": "100", "LATER_TABLES": without_totals}
        for name, value in (settings | {"LATER_CLIENT_ID": CLIENT_ID, "LATER_CLIENT_SECRET": CLIENT_SECRET}).items():
            monkeypatch.setenv(name, value)
        project = Project(dg.Definitions(), instance, tmp_path / "lake").configured(start_date=START)
        yield World(project, posts, monkeypatch)


def command(*arguments: str) -> str:
    """Run a command that succeeds; return its output as one line."""
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_posts_published_sixty_days_ago_that_appear_are_named_and_fetched_by_a_command_and_a_tick(
    world: World, dagster_home: Path
) -> None:
    day = TODAY - 60 * DAY
    late = {name: world.posts.ids(day, name)[0] for name in (NORTH, SOUTH)}
    post_id = late[NORTH]
    world.posts.hidden.update(late.values())
    world.fetch_history()
    assert world.check() == (True, "None of 126 files is stale", {})
    assert not world.pairs(world.tick())
    world.posts.hidden.clear()
    world.posts.active |= {each: {TODAY - DAY} for each in late.values()}
    assert parse_day_ranges(world.fetch_daily(TODAY), earliest=START, latest=date.max) == [
        TODAY - age * DAY for age in (50, 33, 22, 15, 10)
    ]
    lacks = {name: f"{day} {name} lacks post {each}, with results" for name, each in late.items()}
    passed, description, _ = world.check()
    assert not passed
    assert description.startswith(f"2 files are stale: {lacks[SOUTH]}; {lacks[NORTH]}. ")

    assert "stale_days" in command("instances")
    days = ("--start", str(day - DAY), "--end", str(day + DAY))
    of_south = ("--asset", f"later/{PUBLISHED}", "--instances", SOUTH, *days)
    assert "1 of 1 files" in command("backfill", *of_south, "--only-missing", "--verbose")
    assert world.is_stored(day, SOUTH)
    assert not world.is_stored(day, NORTH)

    assert [(row["is_published"], row["is_withdrawn"]) for row in world.rolled_up(post_id)] == [(False, True)]
    assert world.check()[1].startswith(f"1 file is stale: {lacks[NORTH]}. ")
    data = world.tick()
    assert world.pairs(data) == {NORTH: [str(day)]}
    instances = world.project.lake.read_table(INSTANCES_TABLE, schema=INSTANCES_SCHEMA)
    assert instances is not None
    assert {row["instance_id"]: row["stale_days"] for row in instances.to_pylist()} == {NORTH: 1, SOUTH: 0}
    world.execute(data)
    assert world.is_stored(day, NORTH)
    assert world.check() == (True, "None of 128 files is stale", {})
    assert [(row["is_published"], row["is_withdrawn"]) for row in world.rolled_up(post_id)] == [(True, False)]
    assert not world.pairs(world.tick())


def test_changes_of_old_days_are_right_once_the_day_reaches_the_next_age_and_no_post_counts_twice(world: World) -> None:
    restated_day, moved_day, new_day = TODAY - 48 * DAY, TODAY - 49 * DAY, TODAY - DAY
    world.fetch_history()
    restated, deleted = world.posts.ids(restated_day, SOUTH)[0], world.posts.ids(restated_day, NORTH)[0]
    moved = world.posts.ids(moved_day, NORTH)[0]
    world.posts.restate(restated)
    world.posts.hidden.add(deleted)
    world.posts.move(moved, new_day)
    world.fetch_daily(TODAY)
    assert not world.is_stored(restated_day, SOUTH)
    assert world.days_of(moved) == [moved_day, new_day]
    assert len(world.rolled_up(moved)) == 1
    for offset, day in enumerate((moved_day, restated_day), start=1):
        assert day in parse_day_ranges(world.fetch_daily(TODAY + offset * DAY), earliest=START, latest=date.max)
    assert world.days_of(moved) == [new_day]
    assert world.days_of(deleted) == []
    assert all(world.is_stored(day, name) for day in (restated_day, moved_day) for name in (NORTH, SOUTH))
    assert len(world.rolled_up(moved)) == 1
    assert world.check()[0]


def asked_by_morning(world: World, mornings: int) -> list[set[tuple[date, str]]]:
    """Fetch on some mornings, each with the tick that follows, and return the published days that each asks for."""
    found = []
    for _ in range(mornings):
        world.fetch_daily(world.today + DAY)
        data = world.tick()
        found.append(
            {
                (day, name)
                for name, days in world.pairs(data).items()
                for day in parse_day_ranges(days, earliest=START, latest=date.max)
            }
        )
        if found[-1]:
            world.execute(data)
    return found


@pytest.mark.e2e
def test_each_morning_asks_for_what_has_become_late_and_for_nothing_twice(world: World) -> None:
    days = {what: TODAY - age * DAY for what, age in {"late": 60, "from": 47, "to": 40, "withdrawn": 30}.items()}
    late, gone = world.posts.ids(days["late"], NORTH)[0], world.posts.ids(days["withdrawn"], SOUTH)[0]
    moved = world.posts.ids(days["from"], SOUTH)[0]
    world.posts.hidden |= {late, gone}
    world.fetch_history()
    assert asked_by_morning(world, 1) == [set()]
    world.posts.hidden.clear()
    world.posts.move(moved, days["to"])
    world.posts.active |= dict.fromkeys((late, gone, moved), {TODAY})
    world.fetch_daily(TODAY + DAY)
    data = world.tick()
    assert world.pairs(data) == {NORTH: [str(days["late"])], SOUTH: [str(days["to"]), str(days["withdrawn"])]}
    world.posts.hidden.add(gone)  # results name it, and its day does not have it any more
    world.execute(data)
    assert world.check() == (True, "None of 130 files is stale", {f"{days['withdrawn']} {SOUTH}": [gone]})
    # The results of the withdrawn post go, too, and another one is deleted after its own.
    aged = (world.today + (5 - age) * DAY for age in (22, 33, 50))
    deleted_day = next(day for day in aged if world.posts.ids(day, NORTH))  # fetched again on the fifth morning
    world.posts.hidden.add(deleted := world.posts.ids(deleted_day, NORTH)[0])
    assert asked_by_morning(world, 5) == [set()] * 5
    assert world.check()[2] == {f"{deleted_day} {NORTH}": [deleted]}


@pytest.mark.e2e
def test_an_account_of_another_time_zone_asks_for_no_file_for_a_week(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATER_PADDING_DAYS", "1")
    world.project = world.project.configured(start_date=START)
    world.posts.hours_from_utc = -8
    world.fetch_history()
    assert asked_by_morning(world, 7) == [set()] * 7
