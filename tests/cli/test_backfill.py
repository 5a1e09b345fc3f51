"""`later-reporting backfill`: one run over a range of days, and the failures that it lists."""

import gc
import json
import re
import resource
import shlex
import shutil
import warnings
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from starlette.requests import Request
from starlette.responses import Response

from later_reporting_dagster.cli.in_process_runs import progress_lines
from later_reporting_dagster.cli.project import ENVIRONMENT_MODULE, load_project
from later_reporting_dagster.cli.refresh import minutes_to_fetch
from later_reporting_dagster.contract import CURSOR
from later_reporting_dagster.ingest.progress import Progress
from later_reporting_dagster.lake import Lake
from later_reporting_dagster.lake.tables import OF_INSTANCES, RAW_NAMES
from later_reporting_dagster.server.sandbox import World, create_app
from tests.cli.conftest import User, error_line, failed_lines
from tests.conftest import INSTANCE_IDS, NO_RATE_LIMIT, Service, Truth, partition_file, problem, stored_rows
from tests.defs.conftest import QUIET_LOGGING, list_instances, reject_instance

DAYS = [date(2024, 3, 1), date(2024, 3, 2)]
RANGE = ("--start", "2024-03-01", "--end", "2024-03-02")
PUBLISHED = ("backfill", "--asset", "later/posts_published", *RANGE)
TODAY = datetime.now(UTC).date()
WITHOUT_ROLLUPS = (*RAW_NAMES, "campaigns", "campaign_performance_periods", "instances", "coverage")
FEW_ROLLUPS = ("organic_paid_daily", "organic_paid_overall")


def runs() -> list[dg.DagsterRun]:
    with dg.DagsterInstance.get() as instance:
        return list(instance.get_runs())


def written(user: User) -> set[tuple[date, str | None]]:
    """Return the (day, instance) pairs that have a file."""
    return {(partition.day, partition.instance_id) for partition in Lake(str(user.lake)).partitions("posts_published")}


def all_rows(truth: Truth) -> int:
    return sum(len(truth.partition("post_date", day, instance_id)) for day in DAYS for instance_id in INSTANCE_IDS)


def test_backfill_on_an_empty_home_writes_all_instances_in_one_run(user: User, truth: Truth) -> None:
    shutil.rmtree(user.home)
    user.home.mkdir()
    (user.home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    result = user.run(*PUBLISHED)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        f"later/posts_published: 2 days, 2 of them changed; {all_rows(truth):,} rows",
        "Next: later-reporting refresh",
    ]
    assert written(user) == {(day, instance_id) for day in DAYS for instance_id in INSTANCE_IDS}
    (run,) = runs()
    assert run.status is dg.DagsterRunStatus.SUCCESS
    # What the UI shows as the run's target.
    assert run.asset_selection == {dg.AssetKey(["later", "posts_published"])}
    # Without it, the run would not be on the timeline of the UI, which is its first page.
    assert run.remote_job_origin is not None
    assert run.remote_job_origin.location_name == "later_reporting_dagster.definitions"


def test_backfill_fetches_only_these_instances_and_lists_equal_failures_on_one_line(
    user: User, service: Service
) -> None:
    service.override = reject_instance("007")
    result = user.run(*PUBLISHED, "--instances", "007, Zoë 😀 %2F,a\nb")
    assert result.exit_code == 1
    failed = failed_lines(result)
    assert [line[:2] for line in failed] == [
        ("posts_published", f"{len(DAYS)} files, {DAYS[0]} to {DAYS[-1]}, {name}") for name in ("007", "a b")
    ]
    assert written(user) == {(day, "Zoë 😀 %2F") for day in DAYS}
    assert [run.status for run in runs()] == [dg.DagsterRunStatus.FAILURE]


def test_backfill_keeps_shrinking_files_unless_accepted(user: User, service: Service, small_world: World) -> None:
    command = ("backfill", "--asset", "later/post_metrics_daily", *RANGE, "--instances", "007")
    user.run(*command)
    before = stored_rows(user.lake, "post_metrics_daily", DAYS[0], "007")
    service.app = create_app(replace(small_world, posts_per_day=0), options=NO_RATE_LIMIT)
    rejected = user.run(*command)
    assert rejected.exit_code == 1
    assert f"failed  post_metrics_daily  2024-03-01 007  {len(before)} posts are stored" in rejected.stderr
    assert stored_rows(user.lake, "post_metrics_daily", DAYS[0], "007") == before
    for command_line in re.findall(r"`later-reporting (backfill .* --allow-row-loss)`", rejected.stderr):
        assert user.run(*shlex.split(command_line)).exit_code == 0
    assert stored_rows(user.lake, "post_metrics_daily", DAYS[0], "007") == []


def test_backfill_materializes_weeks_and_assets_without_partitions(user: User) -> None:
    user.run("backfill", "--asset", "post_metrics_daily", *RANGE)
    weekly = user.run("backfill", "--asset", "later/organic_paid_weekly", *RANGE).stdout
    assert weekly.startswith("later/organic_paid_weekly: 1 week, 1 of them changed; ")
    for asset in ("instances", "campaigns", "organic_paid_by_creator", "organic_paid_overall"):
        result = user.run("backfill", "--asset", f"later/{asset}")
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout.startswith(f"later/{asset}: changed; ")
    printed = user.run("backfill", "--asset", "later/organic_paid_report").stdout
    assert printed.splitlines() == [
        "later/organic_paid_report: changed",
        f"Next: open {user.lake}/organic_paid_report/report.html",
    ]


@pytest.fixture
def few_rollups(user: User, monkeypatch: pytest.MonkeyPatch) -> User:
    """A user of two rollups, to save time."""
    monkeypatch.setenv("LATER_TABLES", ",".join((*WITHOUT_ROLLUPS, *FEW_ROLLUPS, "organic_paid_report")))
    return user


def test_backfill_without_days_fetches_an_empty_lake_from_its_start_and_then_30_days(
    few_rollups: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, yesterday = few_rollups, TODAY - timedelta(days=1)
    start = yesterday - timedelta(days=34)
    monkeypatch.setenv("LATER_START_DATE", str(start))
    result = user.run("backfill")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.startswith(f"Fetching {start} to {yesterday}, 35 days: about 1 min\n")
    written = dict(line.split(": ", 1) for line in result.stdout.splitlines() if line.startswith("later/"))
    assert written.keys() == {f"later/{name}" for name in (*WITHOUT_ROLLUPS, *FEW_ROLLUPS, "organic_paid_report")}
    for name in RAW_NAMES:
        days = [partition.day for partition in Lake(str(user.lake)).partitions(name)]
        assert (min(days), max(days), len({*days})) == (start, yesterday, 35)
        assert written[f"later/{name}"].startswith("35 days, ")
    *_, next_step = result.stdout.splitlines()
    assert next_step == f"Next: open {user.lake}/organic_paid_report/report.html"
    assert " checks passed" in result.stdout

    again = user.run("backfill")
    assert "later/posts_published: 30 days, 0 of them changed; " in again.stdout
    assert "Fetching" not in again.stderr
    monkeypatch.setenv("LATER_START_DATE", str(yesterday))
    assert "later/posts_published: 1 day, 0 of them changed; " in user.run("backfill").stdout


def test_backfill_without_asset_goes_on_after_a_failed_instance_and_prints_json(
    few_rollups: User, service: Service
) -> None:
    service.override = reject_instance("007")
    result = few_rollups.run("backfill", *RANGE, "--format", "json")
    assert result.exit_code == 1
    printed = json.loads(result.stdout)
    assert printed["succeeded"] is False
    failed = {(each["asset"], each["subject"]) for each in printed["failed"]}
    assert failed == {(name, f"{len(DAYS)} files, {DAYS[0]} to {DAYS[-1]}, 007") for name in OF_INSTANCES}
    written = {each["asset"].removeprefix("later/"): each for each in printed["written"]}
    assert {*RAW_NAMES, *FEW_ROLLUPS, "organic_paid_report"} <= written.keys()
    assert written["organic_paid_daily"]["partitions"] == len(DAYS)
    red = {check["asset"] for check in printed["checks"] if check["check"] == "every_instance_is_present"}
    assert red == {f"later/{name}" for name in OF_INSTANCES}


def test_backfill_without_asset_passes_options_to_the_tables_that_have_them(
    few_rollups: User, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert few_rollups.run("backfill", *RANGE, "--instances", "007", "--allow-row-loss").exit_code == 0
    assert written(few_rollups) == {(day, "007") for day in DAYS}
    service.requests.clear()
    monkeypatch.setenv("LATER_TABLES", ",".join(WITHOUT_ROLLUPS))
    result = few_rollups.run("backfill", *RANGE, "--instances", "007", "--only-missing")
    assert (result.exit_code, service.data_requests) == (0, 0)
    assert "report.html" not in result.output, "there is no report"


def test_backfill_warns_about_a_range_without_posts(user: User, service: Service, small_world: World) -> None:
    service.app = create_app(replace(small_world, posts_per_day=0), options=NO_RATE_LIMIT)
    result = user.run(*PUBLISHED)
    assert result.exit_code == 0
    (warning,) = result.stderr.splitlines()
    assert warning.startswith(
        "Warning: posts_published has no rows from 2024-03-01 to 2024-03-02: all 8 files are empty."
    )
    assert all(word in warning for word in ("--instances", "LATER_INSTANCE_IDS", "later-reporting doctor"))
    service.requests.clear()
    assert user.run(*PUBLISHED, "--only-missing").stderr == ""
    assert service.data_requests == 0
    shutil.rmtree(user.lake / "posts_published" / f"date={DAYS[0]}")
    assert user.run(*PUBLISHED, "--only-missing").stderr == ""
    assert service.data_requests > 0


def test_backfill_warns_if_the_api_refuses_campaigns(user: User, service: Service) -> None:
    service.refuse_campaigns(403)
    result = user.run("backfill", "--asset", "later/campaign_performance_daily", *RANGE)
    assert result.exit_code == 0
    (warning,) = result.stderr.splitlines()
    assert warning.startswith("Warning: later/campaign_performance_daily was not updated")
    assert "HTTP 403" in warning


@pytest.mark.parametrize("service", [CURSOR], indirect=True, ids=str)
def test_backfill_shows_its_progress_and_the_rows_that_it_keeps(
    user: User, truth: Truth, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LATER_VERIFY_PERCENT", "100")  # fetches each query twice
    user.run(*PUBLISHED)
    first, last = capfd.readouterr().err.splitlines()[-2:]
    assert first == "Making posts_published"
    assert re.fullmatch(rf"posts_published: 8 of 8 files, [0-9]+ requests, {all_rows(truth):,} rows", last)


def test_progress_is_a_line_per_table_or_what_is_made() -> None:
    fetches: list[Progress] = []

    def lines(minutes: int = 0) -> list[str]:
        return progress_lines(["posts_published", "organic_paid_daily"], fetches, minutes=minutes)

    assert lines() == ["Making posts_published, organic_paid_daily"]
    assert lines(minutes=1) == ["Making posts_published, organic_paid_daily: 1 min so far"]
    fetches.append(Progress("posts_published", slices=10, written=4, status="waiting 40 s for the rate limit"))
    assert lines() == ["posts_published: 4 of 10 files, waiting 40 s for the rate limit"]
    fetches[:] = [Progress("posts_published", slices=10, written=9, failed=1, requests=1_200, rows=34_567)]
    assert lines() == ["posts_published: 10 of 10 files, 1,200 requests, 34,567 rows"]


def test_backfill_with_a_wrong_secret_or_lake_fails_before_a_run(
    user: User, service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with monkeypatch.context() as patched:
        patched.setenv("LATER_LAKE_ROOT", str(tmp_path / "file"))
        assert "cannot write" in error_line(user.run("backfill"))
    monkeypatch.setenv("LATER_CLIENT_SECRET", "wrong")
    for command in (("backfill",), PUBLISHED):
        result = user.run(*command)
        assert result.exit_code == 1
        assert len(result.stderr.splitlines()) == 1
        assert "LATER_CLIENT_SECRET" in error_line(result)
    assert runs() == []
    assert not user.lake.exists()


def test_backfill_whose_dagster_home_is_full_prints_one_line(user: User, service: Service) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(request: Request) -> Response | None:
        if request.url.path == "/v2/posts/performance":
            resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))  # the files of the lake are smaller
        return None

    service.override = fill
    try:
        result = user.run(*PUBLISHED)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result.exit_code == 1
    assert error_line(result).startswith("Dagster cannot store the run: ")
    assert f"DAGSTER_HOME={user.home} has free space" in result.stderr
    # The error keeps the generator of the step, and so its fetch, until it is collected.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del result
        gc.collect()


def test_backfill_that_cannot_start_prints_the_reason(
    user: User, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.override = list_instances()
    assert error_line(user.run(*PUBLISHED)) == (
        "The credentials have no access to any instance: have instances added to their scope."
    )
    service.override = lambda request: problem(403) if request.url.path == "/v2/instances" else None
    assert "403" in error_line(user.run(*PUBLISHED))
    monkeypatch.setenv("LATER_CLIENT_ID", "")
    result = user.run(*PUBLISHED)
    assert result.exit_code == 1
    assert "no credentials: set LATER_CLIENT_ID and LATER_CLIENT_SECRET" in error_line(result)
    assert [path for path in user.lake.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("asset", "options", "line"),
    [
        ("posts_published", "--start 2024-03-02 --end 2024-03-01", "--end 2024-03-01 is before --start 2024-03-02"),
        (
            "posts_published",
            "--start 2023-12-31 --end 2024-03-01",
            "--start 2023-12-31: the days are those from 2024-01-01 (LATER_START_DATE) to ",
        ),
        ("posts_published", "--end 2023-06-30", "--end 2023-06-30: the days are those from 2024-01-01"),
        (
            "posts_published",
            f"--start 2024-03-01 --end {TODAY}",
            f"{TODAY - timedelta(days=1)}, the newest that is over",
        ),
        ("posts_published", f"--start {TODAY}", f"--start {TODAY}: the days are those from "),
        ("campaigns", "--start 2024-03-01 --end 2024-03-02", "campaigns has no partitions: omit --start and --end"),
        ("campaign_performance_periods", "--start 2024-03-01", "has no partitions: omit --start and --end"),
        (
            "campaign_performance_daily",
            "--instances 007",
            "applies to post_metrics_daily, posts_published, instance_performance_daily: omit it",
        ),
        ("organic_paid_weekly", "--start 2024-03-01 --end 2024-03-02 --only-missing", "for organic_paid_weekly"),
    ],
)
def test_backfill_rejects_days_and_options_that_do_not_fit(asset: str, options: str, line: str, user: User) -> None:
    result = user.run("backfill", "--asset", f"later/{asset}", *options.split())
    assert result.exit_code == 2
    assert line in error_line(result)
    assert runs() == []


def test_backfill_of_another_day_reports_a_file_that_a_check_has_found_damaged(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def backfill(day: date) -> tuple[int, list[tuple[str, str, str]]]:
        found = user.run("backfill", "--asset", "later/posts_published", "--start", str(day), "--end", str(day))
        return found.exit_code, failed_lines(found)

    monkeypatch.setenv("LATER_TABLES", "posts_published")
    assert user.run(*PUBLISHED).exit_code == 0
    partition_file(user.lake, "posts_published", DAYS[0], "007").write_bytes(b"no Parquet")
    with dg.DagsterInstance.get() as instance:
        job = load_project(ENVIRONMENT_MODULE, name=None).definitions.resolve_job_def("later_checks")
        assert job.execute_in_process(instance=instance, run_config=QUIET_LOGGING).success
    code, ((asset, check, reason),) = backfill(DAYS[1])
    assert (code, asset, check) == (1, "posts_published", "rows_belong_to_partition")
    step = f"Next step: `later-reporting backfill --asset posts_published --start {DAYS[0]} --end {DAYS[0]}`"
    assert reason == f"1 files cannot be read, in {DAYS[0]} 007. {step} (also at {DAYS[0]}, where this had failed)"
    for day in (DAYS[0], DAYS[1]):
        assert backfill(day) == (0, [])


@pytest.mark.parametrize(
    ("days", "rows_of_day", "rate", "minutes"),
    # docs/daily.md, "Backfills": a year of one and of 8 instances. The API allows no more than 120 a minute.
    [(1, 0, 120, 1), (365, 100, 120, 8), (365, 800, 120, 33), (365, 800, 60, 66), (365, 800, 1_000_000, 33)],
)
def test_minutes_of_a_backfill_follow_from_the_posts_of_a_day(
    days: int, rows_of_day: int, rate: int, minutes: int
) -> None:
    assert minutes_to_fetch(days, rows_of_day, requests_per_minute=rate) == minutes


def test_old_name_of_an_option_is_refused(user: User) -> None:
    result = user.run("backfill", "--accept-shrinking")
    assert result.exit_code == 2
    assert error_line(result) == "--accept-shrinking is --allow-row-loss now: rename it"
    assert "--accept-shrinking" not in user.run("backfill", "--help").output
