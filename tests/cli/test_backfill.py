"""`later-reporting backfill`: one run over a box of days × instances, and who failed in it."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pyarrow.parquet as pq
import pytest

from later_reporting_dagster.sandbox import World, create_app
from tests.cli.conftest import User, said
from tests.conftest import INSTANCE_IDS, UNHURRIED, Service, Truth, parameters, partition_file, problem, stored_rows
from tests.defs.conftest import KEYS
from tests.defs.test_organic_paid import assert_sums

DAYS = [date(2024, 3, 1), date(2024, 3, 2)]
BOX = ("--start", "2024-03-01", "--end", "2024-03-02")
TODAY = datetime.now(UTC).date()


@pytest.fixture
def synced(user: User) -> User:
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions("later_instance", KEYS)
    return user


def runs() -> list[dg.DagsterRun]:
    with dg.DagsterInstance.get() as instance:
        return list(instance.get_runs())


def landed(user: User, asset: str) -> set[tuple[date, str]]:
    return {
        (day, instance_id)
        for day in [DAYS[0] - timedelta(days=1), *DAYS, DAYS[-1] + timedelta(days=1)]
        for instance_id in INSTANCE_IDS
        if partition_file(user.lake, asset, day, instance_id).exists()
    }


@pytest.mark.parametrize(
    ("asset", "basis"), [("later/posts_published", "post_date"), ("post_metrics_daily", "performance_date")]
)
def test_all_instances_land_in_one_run(asset: str, basis: str, synced: User, truth: Truth) -> None:
    result = synced.types("backfill", "--asset", asset, *BOX)
    assert result.exit_code == 0, result.stderr
    name = asset.removeprefix("later/")
    assert landed(synced, name) == {(day, instance_id) for day in DAYS for instance_id in INSTANCE_IDS}
    for day, instance_id in landed(synced, name):
        assert stored_rows(synced.lake, name, day, instance_id) == truth.partition(basis, day, instance_id)
    assert [run.status for run in runs()] == [dg.DagsterRunStatus.SUCCESS]


@pytest.mark.parametrize(
    ("wanted", "instance_ids", "runs_needed"),
    [
        (["--instances", "007"], {"007"}, 1),
        (["--instances", "007,instance_000"], {"007", "instance_000"}, 1),
        (["--instances", "instance_000", "--instances", "Zoë 😀 %2F"], {"instance_000", "Zoë 😀 %2F"}, 2),
    ],
)
def test_some_instances_land_in_a_run_a_group_of_neighbours(
    wanted: list[str], instance_ids: set[str], runs_needed: int, synced: User
) -> None:
    result = synced.types("backfill", "--asset", "later/posts_published", *BOX, *wanted)
    assert result.exit_code == 0, result.stderr
    assert landed(synced, "posts_published") == {(day, instance_id) for day in DAYS for instance_id in instance_ids}
    assert len(runs()) == runs_needed


def test_what_failed_is_listed_and_the_rest_has_landed(synced: User, service: Service) -> None:
    service.instead = lambda request: problem(403) if "007" in parameters(request).get("instanceIds", []) else None
    result = synced.types("backfill", "--asset", "later/posts_published", *BOX)
    assert result.exit_code == 1
    listed = [line for line in result.stderr.splitlines() if line.startswith("failed  ")]
    assert [tuple(line.split("  ")[1:3]) for line in listed] == [
        ("posts_published", f"{day}|007") for day in ("2024-03-01", "2024-03-02")
    ]
    assert all("'007'" in line for line in listed)
    assert landed(synced, "posts_published") == {
        (day, instance_id) for day in DAYS for instance_id in INSTANCE_IDS if instance_id != "007"
    }
    assert [run.status for run in runs()] == [dg.DagsterRunStatus.FAILURE]


def test_what_shrinks_is_replaced_when_it_is_accepted(synced: User, service: Service, small_world: World) -> None:
    wanted = ("backfill", "--asset", "later/post_metrics_daily", *BOX[:2], "--end", BOX[1], "--instances", "007")
    synced.types(*wanted)
    before = stored_rows(synced.lake, "post_metrics_daily", DAYS[0], "007")
    service.app = create_app(replace(small_world, posts_per_day=0), options=UNHURRIED)
    refused = synced.types(*wanted)
    assert refused.exit_code == 1
    assert f"failed  post_metrics_daily  2024-03-01|007  {len(before)} posts lie in the lake" in refused.stderr
    assert "--accept-shrinking" in refused.stderr
    assert stored_rows(synced.lake, "post_metrics_daily", DAYS[0], "007") == before
    assert synced.types(*wanted, "--accept-shrinking").exit_code == 0
    assert stored_rows(synced.lake, "post_metrics_daily", DAYS[0], "007") == []


def test_days_are_rolled_up(synced: User, truth: Truth) -> None:
    synced.types("backfill", "--asset", "later/post_metrics_daily", *BOX)
    result = synced.types("backfill", "--asset", "later/organic_paid_daily", *BOX)
    assert result.exit_code == 0, result.stderr
    for day in DAYS:
        file = synced.lake / "organic_paid_daily" / f"date={day}" / "part-0.parquet"
        posts = [row for each in INSTANCE_IDS for row in truth.partition("performance_date", day, each)]
        assert_sums(pq.ParquetFile(file).read().to_pylist(), posts)


def test_weeks_and_months_are_rolled_up_by_the_days_that_are_in_them(synced: User) -> None:
    synced.types("backfill", "--asset", "post_metrics_daily", *BOX)
    for asset, first in (("organic_paid_weekly", "2024-02-26"), ("organic_paid_monthly", "2024-03-01")):
        result = synced.types("backfill", "--asset", f"later/{asset}", *BOX)
        assert result.exit_code == 0, result.stderr
        assert [path.parent.name for path in (synced.lake / asset).rglob("*.parquet")] == [f"date={first}"]
    refused = synced.types("backfill", "--asset", "organic_paid_weekly", *BOX, "--instances", "007")
    assert "later/organic_paid_weekly holds all instances of a week in one partition" in said(refused)


def test_a_rollup_without_raw_days_lists_them(synced: User) -> None:
    result = synced.types("backfill", "--asset", "later/organic_paid_daily", *BOX)
    assert result.exit_code == 1
    listed = [line for line in result.stderr.splitlines() if line.startswith("failed  ")]
    assert [tuple(line.split("  ")[1:3]) for line in listed] == [
        ("organic_paid_daily", day) for day in ("2024-03-01", "2024-03-02")
    ]
    assert all("materialize that first" in line for line in listed)


def test_progress_is_shown(synced: User, capfd: pytest.CaptureFixture[str]) -> None:
    synced.types("backfill", "--asset", "later/posts_published", *BOX)
    shown = capfd.readouterr().err
    assert "posts_published" in shown
    assert "8/8" in shown


def test_a_run_that_cannot_begin_says_why(synced: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_CLIENT_ID", "")
    result = synced.types("backfill", "--asset", "later/posts_published", *BOX)
    assert result.exit_code == 1
    assert "no credentials: set LATER_CLIENT_ID and LATER_CLIENT_SECRET" in said(result)


@pytest.mark.parametrize(
    ("start", "end", "told"),
    [
        ("yesterday", "2024-03-02", "'yesterday' is not a day as YYYY-MM-DD"),
        ("2024-03-01", "2024-02-30", "'2024-02-30' is not a day as YYYY-MM-DD"),
        ("2024-03-02", "2024-03-01", "--end 2024-03-01 is before --start 2024-03-02"),
        ("2023-12-31", "2024-03-01", "before the first partition: set LATER_START_DATE, now 2024-01-01, earlier"),
        ("2024-03-01", str(TODAY), f"--end {TODAY} is not over yet"),
    ],
)
def test_days_that_cannot_be_are_told_in_one_line(start: str, end: str, told: str, user: User) -> None:
    result = user.types("backfill", "--asset", "later/posts_published", "--start", start, "--end", end)
    assert result.exit_code == 2
    assert told in said(result)
    assert [path.name for path in user.home.iterdir()] == ["dagster.yaml"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--asset", "later/posts", *BOX), "posts_published"),
        (("--asset", "later/posts_published", "--start", "2024-03-01"), "--end"),
        (("--asset", "later/organic_paid_daily", *BOX, "--instances", "007"), "leave out --instances"),
    ],
)
def test_a_mistake_is_told_in_one_line(arguments: tuple[str, ...], told: str, user: User) -> None:
    result = user.types("backfill", *arguments)
    assert result.exit_code == 2
    assert told in said(result)


def test_an_instance_that_is_not_registered_is_named_and_runs_nothing(synced: User) -> None:
    result = synced.types("backfill", "--asset", "later/posts_published", *BOX, "--instances", "007,nobody")
    assert result.exit_code == 1
    assert said(result).startswith("Not registered: nobody. Registered are instance_000, 007, ")
    assert runs() == []


def test_without_registered_instances_it_says_how_to_register_them(user: User) -> None:
    result = user.types("backfill", "--asset", "later/posts_published", *BOX)
    assert said(result) == "No instance is registered: run `later-reporting instances --sync` first."


def test_without_a_dagster_home_it_says_what_it_is(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME")
    result = user.types("backfill", "--asset", "later/posts_published", *BOX)
    assert said(result).startswith("DAGSTER_HOME is not set: it is the folder")


def test_a_wrong_start_date_is_named(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_START_DATE", "spring")
    result = user.types("backfill", "--asset", "later/posts_published", *BOX)
    assert said(result) == "LATER_START_DATE is a day as YYYY-MM-DD, not 'spring'"
