"""`later-reporting refresh`: what is missing or outdated is materialized, and nothing else."""

import shutil
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from later_reporting_dagster.cli.refresh import is_empty
from later_reporting_dagster.defs.events import data_versions
from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.lake.parquet_file import content_hash_of, to_parquet
from tests.cli.conftest import User
from tests.cli.test_backfill import DAYS, RANGE, runs
from tests.conftest import Service, files
from tests.defs.conftest import RAW_ASSETS, restate_one_post
from tests.rollups.conftest import posts_of

FETCHED = (*RAW_ASSETS, "campaign_performance_daily")
# One of each kind, to save time.
BY_DAY_AND_WEEK = ("organic_paid_daily", "organic_paid_weekly")
OF_ONE_FILE = ("organic_paid_overall", "organic_paid_by_creator", "posts")
ROLLUPS = (*BY_DAY_AND_WEEK, *OF_ONE_FILE)
ALWAYS = ("instances", "campaigns", "coverage")
REPORT = "organic_paid_report"


def refresh(user: User) -> dict[str, str]:
    result = user.run("refresh")
    assert result.exit_code == 0, result.stderr
    written, _, rest = result.stdout.partition("Rollups and the report are up to date.\n")
    assert rest == f"Next: open {user.lake}/organic_paid_report/report.html\n"
    lines = [line.partition(": ") for line in written.splitlines() if line.startswith("later/")]
    return {key.removeprefix("later/"): text for key, _, text in lines}


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("copies")


@pytest.fixture
def fetched(user: User, service: Service, copies: Path, monkeypatch: pytest.MonkeyPatch) -> User:
    """A user who has fetched two days, and has nothing else."""
    monkeypatch.setenv("LATER_TABLES", ",".join((*FETCHED, *ALWAYS, *ROLLUPS, REPORT)))
    return begin_with(copies / "fetched", user, service, lambda: fetch(user, *FETCHED))


@pytest.fixture
def refreshed(fetched: User, service: Service, copies: Path) -> User:
    """A user whose derived assets are up to date."""
    return begin_with(copies / "refreshed", fetched, service, lambda: refresh(fetched))


def begin_with(copy: Path, user: User, service: Service, prepare: Callable[[], object]) -> User:
    """Prepare the files of a user, or copy them from the test that did it first."""
    if copy.exists():
        for folder in (user.home, user.lake):
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(copy / folder.name, folder)
    else:
        prepare()
        for folder in (user.home, user.lake):
            shutil.copytree(folder, copy / folder.name)
    service.requests.clear()
    return user


def fetch(user: User, *assets: str) -> None:
    for asset in assets:
        assert user.run("backfill", "--asset", asset, *RANGE).exit_code == 0


def test_refresh_writes_everything_that_is_derived_and_fetches_no_posts(fetched: User, service: Service) -> None:
    written = refresh(fetched)
    assert written.keys() == {*ALWAYS, *ROLLUPS, REPORT}
    assert written["organic_paid_daily"].startswith("2 days, 2 of them changed; ")
    assert written["organic_paid_weekly"].startswith("1 week, 1 of them changed; ")
    assert written["organic_paid_report"] == "changed"
    assert not [request for request in service.requests if request.url.path.endswith("/performance")]
    assert [run.status for run in runs()] == [dg.DagsterRunStatus.SUCCESS] * len(runs())
    before = files(fetched.lake)

    assert refresh(fetched).keys() == {*ALWAYS}
    assert files(fetched.lake) == before


@pytest.mark.parametrize("name", ["posts_published", "post_metrics_daily"])
def test_lake_with_posts_of_either_table_is_not_empty(name: str, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    assert is_empty(lake)
    lake.write(name, Partition(DAYS[0], "instance_000"), posts_of())
    assert not is_empty(lake)


def test_refresh_reports_a_day_once(refreshed: User) -> None:
    def reported() -> int:
        with dg.DagsterInstance.get() as instance:
            found = instance.fetch_materializations(dg.AssetKey(["later", "posts_published"]), limit=100)
        return len(found.records)

    before = reported()
    refresh(refreshed)
    assert reported() == before


def test_refresh_computes_only_days_that_were_fetched_since(refreshed: User, service: Service) -> None:
    def fetch_second_day(table: str) -> None:
        days = ("--start", str(DAYS[1]), "--end", str(DAYS[1]))
        assert refreshed.run("backfill", "--asset", table, *days).exit_code == 0

    service.transform = restate_one_post(DAYS[1], "instance_000")
    fetch_second_day("posts_published")
    written = refresh(refreshed)
    assert written.keys() == {*ALWAYS, "organic_paid_by_creator", "posts", REPORT}
    assert written["posts"].startswith("changed; ")
    fetch_second_day("post_metrics_daily")
    written = refresh(refreshed)
    assert written.keys() == {*ALWAYS, *ROLLUPS, REPORT}
    assert written["organic_paid_daily"].startswith("1 day, 1 of them changed; ")
    assert refresh(refreshed).keys() == {*ALWAYS}


def test_refresh_restores_missing_and_damaged_files_and_says_so_beforehand(
    refreshed: User, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(refreshed.lake / "organic_paid_daily" / f"date={DAYS[0]}")
    (refreshed.lake / "organic_paid_daily" / f"date={DAYS[1]}" / "part-0.parquet").write_bytes(b"")
    (refreshed.lake / "organic_paid_by_creator" / "part-0.parquet").unlink()
    printed = refreshed.run("refresh").stdout
    assert (
        "Outdated: 1 day of organic_paid_daily (missing), 1 day of organic_paid_daily (damaged),"
        " organic_paid_by_creator (missing)\n"
    ) in printed
    assert "Making organic_paid_daily\n" in capfd.readouterr().err  # while it does
    assert refresh(refreshed).keys() == {*ALWAYS}


def test_refresh_needs_no_events(refreshed: User) -> None:
    for path in refreshed.home.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "dagster.yaml":
            path.unlink()
    assert refresh(refreshed).keys() == {*ALWAYS}


def test_first_refresh_of_a_lake_of_an_earlier_release_computes_each_rollup_once(
    refreshed: User, service: Service
) -> None:
    """Its rollups do not say what they were made from."""
    lake = Lake(str(refreshed.lake))
    for path in refreshed.lake.glob("organic_paid_*/**/*.parquet"):
        rows = pq.ParquetFile(path).read().replace_schema_metadata()
        path.write_bytes(to_parquet(rows, content_hash=content_hash_of(rows), key_values={}))
    metadata = lake.read_metadata("organic_paid_daily", Partition(DAYS[0]))
    assert metadata
    assert not metadata.key_values
    written = refresh(refreshed)
    assert written["organic_paid_daily"].startswith("2 days, 0 of them changed; ")
    assert written.keys() >= {*BY_DAY_AND_WEEK}
    assert not [request for request in service.requests if request.url.path.endswith("/performance")]
    assert refresh(refreshed).keys() == {*ALWAYS}


def test_refresh_reports_days_that_dagster_does_not_know(refreshed: User) -> None:
    """As after a run that was killed between writing files and logging their days."""

    def known() -> dict[str, dict[str | None, str | None]]:
        with dg.DagsterInstance.get() as instance:
            return {name: data_versions(instance, dg.AssetKey(["later", name])) for name in FETCHED}

    before = known()
    assert all(set(versions) == set(map(str, DAYS)) for versions in before.values())
    with dg.DagsterInstance.get() as instance:
        instance.wipe_assets([dg.AssetKey(["later", name]) for name in FETCHED])
    refresh(refreshed)
    assert known() == before


def test_refresh_names_tables_that_are_no_more_and_keeps_them(refreshed: User) -> None:
    old = refreshed.lake / "organic_paid_by_moon_phase" / "part-0.parquet"
    old.parent.mkdir()
    old.write_bytes(b"an earlier version wrote this")
    printed = refreshed.run("refresh").stdout
    assert "No table of this version: organic_paid_by_moon_phase. Nothing updates them; nothing was deleted." in printed
    assert old.exists()


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("LATER_CLIENT_ID", "", "no credentials: set LATER_CLIENT_ID"),
        ("LATER_BASE_URL", "http://127.0.0.1:9", "ConnectError"),
    ],
)
def test_refresh_goes_on_without_the_api(
    variable: str, value: str, reason: str, refreshed: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    report = refreshed.lake / "organic_paid_report" / "report.html"
    report.unlink()
    result = refreshed.run("refresh")
    assert result.exit_code == 0
    (line,) = result.stderr.splitlines()
    assert line.startswith("Not updated: instances and campaigns, which need the API: ")
    assert reason in line
    assert report.exists()
    assert [run.status for run in runs()] == [dg.DagsterRunStatus.SUCCESS] * len(runs())


def test_refresh_of_an_empty_lake_names_the_first_step_and_writes_an_empty_report(user: User) -> None:
    result = user.run("refresh")
    note = f"{user.lake} has no posts, so there are no rollups: fetch some with `later-reporting backfill`\n"
    assert (result.exit_code, result.stderr) == (0, note)
    assert {line.partition(":")[0] for line in result.stdout.splitlines() if line.startswith("later/")} == {
        *("later/instances", "later/campaigns", "later/coverage", "later/organic_paid_report")
    }
    assert "There are no results to report on yet" in (user.lake / "organic_paid_report" / "report.html").read_text()


def test_refresh_fails_if_rollups_leave_out_a_damaged_file(refreshed: User) -> None:
    next((refreshed.lake / "posts_published").rglob("*.parquet")).write_bytes(b"no Parquet")
    result = refreshed.run("refresh")
    assert result.exit_code == 1
    assert "up to date" not in result.stdout
    assert "Error: The tables are written, without 1 damaged file, such as " in result.stderr
    assert {*OF_ONE_FILE} <= {path.name for path in refreshed.lake.iterdir()}


def test_refresh_removes_the_folders_of_earlier_versions_also_after_an_interrupt(refreshed: User) -> None:
    fresh = files(refreshed.lake)
    copy = "_compacted/posts_published/month=2024-03/instance_id=a/part-0.parquet"
    for path in (copy, copy.replace("=a/", "=b/"), "_late_posts/date=2024-03-01/part-0.parquet"):
        (refreshed.lake / path).parent.mkdir(parents=True)
        (refreshed.lake / path).write_bytes(b"any")
    shutil.rmtree(refreshed.lake / copy.rpartition("/")[0])  # as a killed command may have left it
    result = refreshed.run("refresh")
    assert result.exit_code == 0
    assert result.stdout.startswith("Removed what only earlier versions used: _compacted, _late_posts\n")
    assert files(refreshed.lake).keys() == fresh.keys()


def test_files_with_damaged_metadata_are_named_and_fetched_again(fetched: User) -> None:
    lake, table = Lake(str(fetched.lake)), "post_metrics_daily"
    damage = {
        "absent": None,
        "empty": "",
        "of another type": "[1]",
        "naive": "2024-03-05T04:00:00",
        "far future": "9999-01-01T00:00:00+00:00",
        "very long": "9" * 100_000,
        "deeply nested": "[" * 100_000,
    }
    partitions = lake.partitions(table)[: len(damage)]
    intact = {each: Path(lake.url(table, each)).read_bytes() for each in partitions}
    for partition, text in zip(partitions, damage.values(), strict=True):
        metadata = lake.read_metadata(table, partition)
        assert metadata is not None
        texts = {name: value for name, value in metadata.key_values.items() if name != "fetched_at"}
        texts |= {} if text is None else {"fetched_at": text}
        rows = pq.ParquetFile(Path(lake.url(table, partition))).read().replace_schema_metadata()
        damaged = to_parquet(rows, content_hash=content_hash_of(rows), key_values=texts)
        Path(lake.url(table, partition)).write_bytes(damaged)

    refreshed = fetched.run("refresh")
    (line,) = [line for line in refreshed.stderr.splitlines() if line.startswith("Damaged")]
    assert all(lake.url(table, partition) in line for partition in partitions[:5])
    days = [partition.day for partition in partitions]
    heals = f"later-reporting backfill --only-missing --start {min(days)} --end {max(days)}"
    assert line.endswith(f" and 2 more. Next step: `{heals}`")
    assert fetched.run("backfill", *RANGE, "--only-missing").exit_code == 0
    assert "Damaged" not in fetched.run("refresh").stderr
    for partition, data in intact.items():
        healed = Path(lake.url(table, partition))
        assert pq.ParquetFile(healed).read().equals(pq.ParquetFile(pa.BufferReader(data)).read())
