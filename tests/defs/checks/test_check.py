"""Asset checks: fail on a tampered lake, pass otherwise, and run alone or together."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.requests import Request

from later_reporting_dagster import LaterReportingComponent
from later_reporting_dagster.contract import BadRow
from later_reporting_dagster.defs.checks import posts
from later_reporting_dagster.defs.checks.rollups import evaluate_impressions
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.lake import Lake, Partition, posts_table
from later_reporting_dagster.lake.coverage import FileRecord, RunRecords
from later_reporting_dagster.lake.tables import OF_INSTANCES
from tests.conftest import INSTANCE_IDS, Service
from tests.defs.conftest import (
    DAYS,
    PERIOD_ROLLUPS,
    ROLLUPS,
    WINDOWS,
    Project,
    assert_success,
    fetched,
    fill_once,
    freeze_clock,
    plain_metadata,
)
from tests.lake.conftest import SPOIL

RAW, ROLLUP, PERFORMANCE = "post_metrics_daily", "organic_paid_daily", "campaign_performance_daily"
ACCOUNTS = "instance_performance_daily"
TAMPERED, OTHER = Partition(DAYS[1], INSTANCE_IDS[0]), Partition(DAYS[2], INSTANCE_IDS[1])
WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR
TOTALS = (PERFORMANCE, "totals_agree_with_posts")
MADE_FROM_PERIODS = {"campaign_results", "campaigns_monthly"}
ALL_CHECKS = {
    *((asset, "rates_agree_with_counts") for asset in ("post_metrics_daily", "posts_published")),
    *(
        (asset, check)
        for asset in OF_INSTANCES
        for check in (
            "rows_unique_by_key",
            "rows_belong_to_partition",
            "no_unknown_fields",
            "files_have_requested_metrics",
            "responses_are_as_documented",
            "quarantine_is_empty",
            "every_instance_is_present",
            "newest_due_day_is_present",
        )
    ),
    (RAW, "posts_agree_with_later"),
    ("posts_published", "no_file_is_stale"),
    ("posts_published", "days_add_up_to_metrics_to_date"),
    ("instances", "every_instance_is_still_listed"),
    ("instances", "every_instance_in_the_numbers_is_fetched"),
    *((asset, "quarantine_is_empty") for asset in ("campaigns", "instance_performance_periods")),
    *(
        ("campaign_performance_periods", check)
        for check in ("quarantine_is_empty", "ad_spend_agrees_with_days", "every_campaign_has_an_instance")
    ),
    *((PERFORMANCE, check) for check in ("quarantine_is_empty", "newest_due_day_is_present")),
    (PERFORMANCE, "files_have_requested_metrics"),
    TOTALS,
    *((asset, "is_current") for asset in (*ROLLUPS, *PERIOD_ROLLUPS, *WINDOWS)),
    ("organic_paid_by_platform", "platforms_still_report_impressions"),
}
DUE_DAY = "newest_due_day_is_present"
NOT_FETCHED = ("posts_published", "every_instance_is_present")
# All others run daily: their result changes without a run of their asset.
CHECKED_BY_RUNS_ONLY = {
    *("rows_unique_by_key", "rows_belong_to_partition", "rates_agree_with_counts", "no_unknown_fields"),
    *("responses_are_as_documented", "quarantine_is_empty", "platforms_still_report_impressions"),
}


def file_of(lake: Lake, table: str = RAW, partition: Partition = TAMPERED) -> Path:
    return Path(lake.url(table, partition if table in (RAW, ACCOUNTS) else Partition(partition.day)))


def stored(lake: Lake, table: str = RAW, partition: Partition = TAMPERED) -> pa.Table:
    return pq.ParquetFile(file_of(lake, table, partition)).read().replace_schema_metadata()


def record_oddity(lake: Lake, kind: str, *, times: int) -> None:
    records = RunRecords(lake, RAW, now=datetime.now(UTC))
    records.oddities[kind] += times
    records.add([FileRecord(RAW, TAMPERED.day, TAMPERED.instance_id, requested_at=datetime.now(UTC))])


def set_values(lake: Lake, table: str = RAW, **values: object) -> None:
    """Set columns of a file to one value in all rows."""
    rows = stored(lake, table)
    for column, value in values.items():
        field = rows.schema.field(column)
        array = pa.array([value] * rows.num_rows, field.type)
        rows = rows.set_column(rows.schema.get_field_index(column), field, array)
    lake.write(table, TAMPERED if table in (RAW, ACCOUNTS) else Partition(TAMPERED.day), rows, metadata=fetched())


def alter(path: Path) -> None:
    """Leave out a row, as a notebook might: the metadata stay."""
    pq.write_table(pq.ParquetFile(path).read()[1:], path)


BAD_ROW = BadRow(reason="impressions must be a whole number", raw="{}")
IN_FILE = "in 2024-03-02 instance_000"
# The table of a check, its severity, and how it describes what the lake lacks after a change below.
EXPECTED = {
    "rows_unique_by_key": (RAW, ERROR, IN_FILE),
    "rows_belong_to_partition": (RAW, ERROR, IN_FILE),
    "rates_agree_with_counts": (RAW, WARN, IN_FILE),
    "no_unknown_fields": (RAW, WARN, IN_FILE),
    "responses_are_as_documented": (RAW, WARN, "Read in spite of this: total as text (3)"),
    "every_instance_is_present": (RAW, ERROR, "1 file is missing: 2024-03-02 (1 day): instance_000."),
    "quarantine_is_empty": (RAW, WARN, "1 rows in quarantine: see `later-reporting quarantine`"),
    "is_current": (ROLLUP, ERROR, "Outdated: 1 day of organic_paid_daily ("),
    "newest_due_day_is_present": (PERFORMANCE, WARN, "2024-03-03 is missing: materialize it"),
    "totals_agree_with_posts": (PERFORMANCE, WARN, " on 2024-03-02 (1000000000 and "),
}


@pytest.fixture
def filled(project: Project, module_lake: Path) -> Project:
    """The project with one raw table, its rollup, and the totals of its campaigns and instances in the lake."""
    tags = range_tags(DAYS[0], DAYS[-1])

    def fill(new: Project) -> bool:
        return new.run(RAW, ROLLUP, PERFORMANCE, ACCOUNTS, tags=tags).success and new.run("coverage").success

    return fill_once(project, module_lake, fill)


def test_checks_pass_after_a_fetch_except_freshness(filled: Project, service: Service) -> None:
    service.requests.clear()
    results = filled.check()
    assert service.requests == []
    assert results.keys() == ALL_CHECKS
    assert {key for key, evaluation in results.items() if not evaluation.passed} == {
        NOT_FETCHED,
        ("posts_published", DUE_DAY),
        # Periods of campaigns were not fetched.
        *((asset, "is_current") for asset in {*ROLLUPS, *PERIOD_ROLLUPS, *WINDOWS} - {ROLLUP, *MADE_FROM_PERIODS}),
    }
    assert (results[RAW, "rows_unique_by_key"].description or "").endswith(" rows of 12 files")
    totals = plain_metadata(results[TOTALS])
    assert totals["compared"] > 0 == totals["unknown_campaigns"] == totals["days_without_posts"]
    assert totals["difference_percent/impressions"] == totals["difference_percent/engagements"] == 0.0


@pytest.mark.parametrize(
    ("check", "tamper"),
    [
        ("rows_unique_by_key", lambda lake: lake.write(RAW, TAMPERED, pa.concat_tables([stored(lake)] * 2))),
        ("rows_belong_to_partition", lambda lake: lake.write(RAW, TAMPERED, stored(lake, partition=OTHER))),
        ("rows_belong_to_partition", lambda lake: file_of(lake).write_bytes(b"no Parquet")),
        ("rates_agree_with_counts", partial(set_values, engagements=1, impressions=100, engagement_rate=2.0)),
        ("no_unknown_fields", partial(set_values, extra='{"boosts":1}')),
        ("responses_are_as_documented", lambda lake: record_oddity(lake, "total as text", times=3)),
        ("every_instance_is_present", lambda lake: file_of(lake).unlink()),
        (
            "quarantine_is_empty",
            lambda lake: lake.quarantine.write(lake.quarantine.path_of(RAW, TAMPERED), [BAD_ROW], query="startDate=…"),
        ),
        ("is_current", partial(set_values, paid_impressions=12345)),
        ("is_current", partial(set_values, table=ROLLUP, organic_engagements=None)),
        ("is_current", lambda lake: file_of(lake).unlink()),
        ("is_current", lambda lake: file_of(lake, ROLLUP).unlink()),
        ("is_current", lambda lake: alter(file_of(lake, ROLLUP))),
        ("newest_due_day_is_present", lambda lake: file_of(lake, PERFORMANCE, OTHER).unlink()),
        ("totals_agree_with_posts", partial(set_values, table=PERFORMANCE, impressions=10**9)),
    ],
)
def test_check_fails_on_a_tampered_lake(check: str, tamper: Callable[[Lake], object], filled: Project) -> None:
    asset, severity, description = EXPECTED[check]
    tamper(filled.lake)
    results = filled.check((asset, check))
    assert results.keys() == {(asset, check)}
    result = results[asset, check]
    assert (result.passed, result.severity) == (False, severity)
    assert description in (result.description or "")


def test_posts_are_held_against_what_later_totals_three_days_later(
    filled: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = (RAW, "posts_agree_with_later")
    (before,) = filled.check(key).values()
    freeze_clock(monkeypatch, datetime(2024, 3, 7, 13, tzinfo=UTC))
    (agreeing,) = filled.check(key).values()
    set_values(filled.lake, table=ACCOUNTS, impressions=10**9)
    (differing,) = filled.check(key).values()
    assert [each.passed for each in (before, agreeing, differing)] == [True, True, False]
    assert (before.description or "").startswith("No day can be compared: ")
    assert agreeing.description == "The posts of 12 days of instances add up to Later's totals"
    assert "impressions of instance_000 on 2024-03-02 (1000000000, and " in (differing.description or "")
    assert differing.severity is WARN


def test_first_fetch_holds_posts_against_what_later_totals(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    freeze_clock(monkeypatch, datetime(2024, 3, 7, 13, tzinfo=UTC))
    result = project.run(RAW, ACCOUNTS, tags=range_tags(DAYS[0], DAYS[-1]))
    assert_success(result)
    description = project.evaluations(result)[RAW, "posts_agree_with_later"].description
    assert description == "The posts of 12 days of instances add up to Later's totals"


def test_table_that_cannot_be_listed_leaves_the_other_checks_their_results(filled: Project) -> None:
    (filled.root / PERIOD_ROLLUPS[0]).write_bytes(b"not a directory")
    result = filled.run_job("later_checks")
    assert filled.evaluations(result).keys() == ALL_CHECKS


def test_directory_in_place_of_a_file_is_a_missing_file(filled: Project) -> None:
    for path in (file_of(filled.lake), file_of(filled.lake, ROLLUP), file_of(filled.lake, PERFORMANCE)):
        SPOIL["obstruct"](path)
    results = filled.check()
    assert results.keys() == ALL_CHECKS
    assert EXPECTED["every_instance_is_present"][2] in (results[RAW, "every_instance_is_present"].description or "")
    assert "1 day of organic_paid_daily (missing)" in (results[ROLLUP, "is_current"].description or "")


def test_run_of_tables_by_day_and_month_looks_at_the_partitions_of_each(filled: Project) -> None:
    file_of(filled.lake, ROLLUP, Partition(DAYS[1])).unlink()  # a day of the month that the run does not select
    result = filled.run(ROLLUP, "organic_paid_monthly", tags=range_tags(DAYS[0], DAYS[0]))
    assert_success(result)
    passed = {key: each.passed for key, each in filled.evaluations(result).items()}
    assert passed == {(name, "is_current"): True for name in (ROLLUP, "organic_paid_monthly")}


def test_freshness_passes_once_all_files_of_the_due_day_exist(project: Project) -> None:
    for instance_id in INSTANCE_IDS[1:]:
        project.lake.write(RAW, Partition(DAYS[-1], instance_id), posts_table([]))
    project.lake.write(RAW, Partition(DAYS[0], INSTANCE_IDS[0]), posts_table([]))  # makes the instance known
    key = (RAW, DUE_DAY)
    results = project.check(key)
    assert not results[key].passed
    assert results[key].metadata["missing_instances"].value == 1
    assert results[key].description == f"{DAYS[-1]} is missing for {INSTANCE_IDS[0]}: materialize it"

    project.lake.write(RAW, Partition(DAYS[-1], INSTANCE_IDS[0]), posts_table([]))
    assert project.check(key)[key].passed


def test_nothing_is_due_before_the_first_day_is(project: Project) -> None:
    checks = [(RAW, DUE_DAY), ("posts_published", DUE_DAY)]
    results = project.configured(start_date=datetime.now(UTC).date()).check(*checks)
    assert {key: (each.passed, each.description) for key, each in results.items()} == dict.fromkeys(
        checks, (True, "No day is due yet")
    )


def test_checks_pass_on_an_empty_lake_except_for_missing_files(project: Project) -> None:
    results = project.check()
    assert results.keys() == ALL_CHECKS
    failed = {"every_instance_is_present", "newest_due_day_is_present"}
    assert {name for (_, name), each in results.items() if not each.passed} == failed
    described = {asset: results[asset, "newest_due_day_is_present"].description for asset in (RAW, PERFORMANCE)}
    assert described == {RAW: f"{DAYS[-1]} is missing: materialize it", PERFORMANCE: "Not fetched yet"}
    assert results[RAW, "every_instance_is_present"].description == "No instance is known: materialize instances"


def test_description_names_the_first_missing_instances() -> None:
    names = [f"i{number}" for number in range(50)]
    missing = [Partition(day, name) for name in names[1:] for day in DAYS]
    result = posts.evaluate_newest_due_day(missing, days=DAYS, instances=names, check=posts.DUE_DAY)
    assert (result.description or "").endswith("i20 and 29 more: materialize it")
    assert (result.metadata["missing_instances"].value, result.metadata["instances"].value) == (49, 50)


@pytest.mark.parametrize(
    ("posts", "reporting", "posts_now", "passed"),
    [
        (20, 18, 2, True),  # two posts without impressions are no surprise if two of twenty have none
        (20, 18, 4, False),
        (2, 2, 2, True),
        (100, 5, 30, True),
        (100, 5, 0, True),
        (30, 30, 20, False),
    ],
)
def test_platform_without_impressions_warns_if_chance_is_unlikely(
    posts: int, reporting: int, posts_now: int, passed: bool
) -> None:
    result = evaluate_impressions(windows(posts, reporting, posts_now))
    assert (result.passed, result.severity) == (passed, WARN)


def windows(posts: int, reporting: int, posts_now: int) -> pa.Table:
    """Return the rows of a platform of which no post in the last 7 days reports impressions."""
    platform = {"scope": "instance", "instance_id": "007", "platform": "tiktok"}
    counts = {"28d": (posts, reporting), "7d": (posts_now, 0)}
    return pa.Table.from_pylist(
        [
            {**platform, "time_window": name, "posts": posts, "organic_impressions_posts": reporting}
            for name, (posts, reporting) in counts.items()
        ]
    )


def test_schedule_runs_the_checks_of_the_whole_lake_at_the_due_hour(filled: Project) -> None:
    alter(file_of(filled.lake, ROLLUP))
    schedule = filled.defs.resolve_schedule_def("later_checks_daily")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 12 * * *", "UTC")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    context = dg.build_schedule_context(scheduled_execution_time=datetime(2026, 1, 10, 12, tzinfo=UTC))
    (request,) = schedule.evaluate_tick(context).run_requests or []
    checks = [(key.asset_key.path[-1], key.name) for key in request.asset_check_keys or ()]
    assert sorted(checks) == sorted(each for each in ALL_CHECKS if each[1] not in CHECKED_BY_RUNS_ONLY)
    results = filled.check(*checks)
    assert results.keys() == {*checks}
    assert not results[ROLLUP, "is_current"].passed


def test_runs_that_the_sensor_requests_evaluate_all_checks_of_their_assets(filled: Project) -> None:
    filled.fetch(RAW)
    requests = filled.sensor("later_rollups").run_requests or []
    graph = filled.defs.resolve_asset_graph()
    assert requests
    for each in requests:
        checks = graph.get_check_keys_for_assets(set(each.asset_selection or ()))
        # Without keys of checks, a run has all those of its assets.
        assert set(each.asset_check_keys or checks) == checks
    assert not [key for key in graph.asset_check_keys if graph.get(key).automation_condition]


def test_checks_of_a_raw_table_are_one_step_besides_those_that_compare_it_with_another(project: Project) -> None:
    result = project.run(RAW, "posts_published", tags=range_tags(DAYS[0], DAYS[-1]))
    assert_success(result)
    steps = {event.step_key for event in result.all_events if event.is_step_success}
    assert steps == {
        *("later__post_metrics_daily", "later__post_metrics_daily_checks", "later__post_metrics_daily_accounts"),
        *("later__posts_published", "later__posts_published_checks", "later__posts_published_settlement"),
        "later__posts_published_staleness",
    }


@pytest.mark.parametrize("blocking", [(), ("quarantine_is_empty",)])
def test_blocking_check_stops_a_run_before_what_is_downstream(
    blocking: tuple[str, ...], project: Project, service: Service
) -> None:
    def with_bad_row(_request: Request, document: Any) -> Any:
        if isinstance(document["data"], list):  # a page of posts
            document["data"][0]["postId"] = None
        return document

    service.transform = with_bad_row
    blocked = project.configured(blocking_checks=blocking)
    result = blocked.run(RAW, ROLLUP, tags=range_tags(DAYS[0], DAYS[-1]))
    assert result.success is not bool(blocking)
    found = blocked.evaluations(result)[RAW, "quarantine_is_empty"]
    assert (found.passed, found.severity) == (False, ERROR if blocking else WARN)
    assert bool(project.lake.partitions(ROLLUP)) is not bool(blocking)
    assert project.lake.partitions(RAW)


def test_blocking_check_that_does_not_exist_is_named() -> None:
    message = r"LATER_BLOCKING_CHECKS \(blocking_checks\): there is no check row; there are .*, rows_unique_by_key"
    with pytest.raises(dg.DagsterInvalidDefinitionError, match=message):
        LaterReportingComponent(blocking_checks=["row", "is_current"]).build_definitions()
