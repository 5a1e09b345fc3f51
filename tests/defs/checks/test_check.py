"""Asset checks: fail on a tampered lake, pass otherwise, and run alone or together."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from later_reporting_dagster import LaterReportingComponent
from later_reporting_dagster.contract import BadRow
from later_reporting_dagster.defs.checks.posts import evaluate_newest_due_day
from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, Partition, posts_table, schema_of
from later_reporting_dagster.rollups.rollup_tables import BY_PLATFORM, DAILY
from tests.conftest import INSTANCE_IDS
from tests.defs.conftest import DAYS, PERIOD_ROLLUPS, ROLLUPS, WINDOWS, Project, fill_once

RAW = "post_metrics_daily"
ROLLUP = "organic_paid_daily"
TAMPERED, OTHER = Partition(DAYS[1], INSTANCE_IDS[0]), Partition(DAYS[2], INSTANCE_IDS[1])
WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR
ALL_CHECKS = {
    *(
        (asset, check)
        for asset in ("post_metrics_daily", "posts_published")
        for check in (
            "rows_unique_by_key",
            "rows_belong_to_partition",
            "rates_agree_with_counts",
            "no_unknown_fields",
            "quarantine_is_empty",
            "every_instance_is_present",
            "newest_due_day_is_present",
        )
    ),
    ("posts_published", "days_add_up_to_metrics_to_date"),
    ("instances", "every_instance_is_still_listed"),
    ("campaigns", "quarantine_is_empty"),
    ("campaign_performance_daily", "quarantine_is_empty"),
    ("campaign_performance_daily", "newest_due_day_is_present"),
    ("campaign_performance_daily", "totals_agree_with_posts"),
    *(
        (asset, check)
        for asset in (*ROLLUPS, *PERIOD_ROLLUPS, *WINDOWS)
        for check in ("reconciles_with_raw_rows", "newest_due_day_is_present")
        if (asset, check) != ("campaign_results", "newest_due_day_is_present")
        and (check != "reconciles_with_raw_rows" or asset not in ("post_benchmarks", "organic_paid_by_age"))
    ),
    ("organic_paid_by_platform", "platforms_still_report_impressions"),
}
NOT_FETCHED = ("posts_published", "every_instance_is_present")
# All others run daily: their result changes with time, or no run of their asset evaluates them.
CHECKED_BY_RUNS = {
    *("rows_unique_by_key", "rows_belong_to_partition", "rates_agree_with_counts", "no_unknown_fields"),
    *("quarantine_is_empty", "reconciles_with_raw_rows", "platforms_still_report_impressions"),
}


def with_value(table: pa.Table, column: str, value: object) -> pa.Table:
    """Return the table with one value in all rows of a column."""
    index = table.schema.get_field_index(column)
    values = pa.array([value] * table.num_rows, table.schema.field(column).type)
    return table.set_column(index, table.schema.field(column), values)


def raw_rows(lake: Lake, partition: Partition) -> pa.Table:
    return lake.read(RAW, [partition], schema=POSTS_SCHEMA)


def duplicate_row(lake: Lake) -> None:
    table = raw_rows(lake, TAMPERED)
    lake.write(RAW, TAMPERED, pa.concat_tables([table, table.slice(0, 1)]))


def swap_partitions(lake: Lake) -> None:
    lake.write(RAW, TAMPERED, raw_rows(lake, OTHER))


def damage_file(lake: Lake) -> None:
    Path(lake.url(RAW, TAMPERED)).write_bytes(b"no Parquet")


def contradict_rate(lake: Lake) -> None:
    table = raw_rows(lake, TAMPERED)
    table = with_value(with_value(with_value(table, "engagements", 1), "impressions", 100), "engagement_rate", 2.0)
    lake.write(RAW, TAMPERED, table)


def add_unknown_field(lake: Lake) -> None:
    lake.write(RAW, TAMPERED, with_value(raw_rows(lake, TAMPERED), "extra", '{"shares":1}'))


def delete_file(lake: Lake) -> None:
    Path(lake.url(RAW, TAMPERED)).unlink()


def quarantine_row(lake: Lake) -> None:
    lake.quarantine.write(
        RAW, TAMPERED, [BadRow(reason="impressions must be a whole number", raw="{}")], query="startDate=…"
    )


def restate_raw_day(lake: Lake) -> None:
    lake.write(RAW, TAMPERED, with_value(raw_rows(lake, TAMPERED), "paid_impressions", 12345))


def change_rollup(lake: Lake) -> None:
    table = lake.read(ROLLUP, [Partition(TAMPERED.day)], schema=schema_of(DAILY.columns))
    lake.write(ROLLUP, Partition(TAMPERED.day), with_value(table, "organic_engagements", None))


TAMPERINGS: dict[Callable[[Lake], None], tuple[str, str, dg.AssetCheckSeverity]] = {
    duplicate_row: (RAW, "rows_unique_by_key", ERROR),
    swap_partitions: (RAW, "rows_belong_to_partition", ERROR),
    damage_file: (RAW, "rows_belong_to_partition", ERROR),
    contradict_rate: (RAW, "rates_agree_with_counts", WARN),
    add_unknown_field: (RAW, "no_unknown_fields", WARN),
    delete_file: (RAW, "every_instance_is_present", ERROR),
    quarantine_row: (RAW, "quarantine_is_empty", WARN),
    restate_raw_day: (ROLLUP, "reconciles_with_raw_rows", ERROR),
    change_rollup: (ROLLUP, "reconciles_with_raw_rows", ERROR),
}


@pytest.fixture
def filled(project: Project, module_lake: Path) -> Project:
    """The project with one raw table and its rollup in the lake."""
    return fill_once(project, module_lake, lambda new: new.fetch(RAW).success and new.roll_up(ROLLUP).success)


def test_checks_pass_after_a_fetch_except_freshness(filled: Project) -> None:
    results = filled.check()
    assert results.keys() == ALL_CHECKS
    assert {key for key, evaluation in results.items() if not evaluation.passed} == {
        NOT_FETCHED,
        *(
            key
            for key in ALL_CHECKS
            if key[1] == "newest_due_day_is_present" and key[0] not in (RAW, "campaign_performance_daily")
        ),
    }
    assert (results[RAW, "rows_unique_by_key"].description or "").endswith(" rows of 12 files")
    assert results[ROLLUP, "reconciles_with_raw_rows"].description == "3 days equal their raw rows"


@pytest.mark.parametrize("tamper", TAMPERINGS, ids=lambda tamper: tamper.__name__)
def test_check_fails_on_a_tampered_lake(tamper: Callable[[Lake], None], filled: Project) -> None:
    asset, check, severity = TAMPERINGS[tamper]
    (before,) = filled.check((asset, check)).values()
    assert before.passed
    tamper(filled.lake)
    results = filled.check((asset, check))
    assert results.keys() == {(asset, check)}
    (after,) = results.values()
    assert (after.passed, after.severity) == (False, severity)
    expected = {
        "quarantine_is_empty": "1 rows in quarantine: see `later-reporting quarantine`",
        "every_instance_is_present": "1 file is missing: 2024-03-02 (1 day): instance_000.",
        "reconciles_with_raw_rows": "materialize 2024-03-02",
    }.get(check, "in 2024-03-02 instance_000")
    assert expected in (after.description or "")


def test_freshness_passes_once_all_files_of_the_due_day_exist(project: Project) -> None:
    # Of rollups two days, in case the due hour passes during the test.
    days = [datetime.now(UTC).date() - timedelta(days=age) for age in (1, 2)]
    for instance_id in INSTANCE_IDS[1:]:
        project.lake.write(RAW, Partition(DAYS[-1], instance_id), posts_table([]))
    project.lake.write(RAW, Partition(DAYS[0], INSTANCE_IDS[0]), posts_table([]))  # makes the instance known
    key, rollup_key = (RAW, "newest_due_day_is_present"), (ROLLUP, "newest_due_day_is_present")
    results = project.check(key, rollup_key)
    assert not results[key].passed
    assert results[key].metadata["missing_instances"].value == 1
    assert results[key].description == f"{DAYS[-1]} is missing for {INSTANCE_IDS[0]}: materialize it"
    assert not results[rollup_key].passed

    project.lake.write(RAW, Partition(DAYS[-1], INSTANCE_IDS[0]), posts_table([]))
    for day in days:
        project.lake.write(ROLLUP, Partition(day), schema_of(DAILY.columns).empty_table())
    results = project.check(key, rollup_key)
    assert results.keys() == {key, rollup_key}
    assert all(evaluation.passed for evaluation in results.values())


def test_no_rollup_is_due_before_the_first_day_is(project: Project) -> None:
    defs = LaterReportingComponent.from_environment(start_date=datetime.now(UTC).date()).build_definitions()
    rollups = [(name, "newest_due_day_is_present") for name in (*ROLLUPS, *PERIOD_ROLLUPS, BY_PLATFORM.name)]
    results = replace(project, defs=defs).check(*rollups)
    assert {key: (each.passed, each.description) for key, each in results.items()} == dict.fromkeys(
        rollups, (True, "No day is due yet")
    )


def test_checks_pass_on_an_empty_lake_except_freshness(project: Project) -> None:
    results = project.check()
    assert results.keys() == ALL_CHECKS
    assert {check for (_, check), evaluation in results.items() if not evaluation.passed} == {
        "newest_due_day_is_present"
    }


def test_newest_due_day_needs_a_file_of_each_instance() -> None:
    days = DAYS[:1]
    # Without files no instance is known.
    unknown = evaluate_newest_due_day({}, days=days, instances=[])
    assert (unknown.passed, unknown.description) == (False, "2024-03-01 is missing: materialize it")
    nothing = evaluate_newest_due_day({}, days=[], instances=["a"])
    assert (nothing.passed, nothing.description) == (True, "No day is due yet")
    names = [f"i{number}" for number in range(50)]
    many = evaluate_newest_due_day(dict.fromkeys(names[1:], days), days=days, instances=names)
    assert (many.description or "").endswith("i20 and 29 more: materialize it")
    assert (many.metadata["missing_instances"].value, many.metadata["instances"].value) == (49, 50)


def test_daily_checks_are_requested_once_a_day_at_the_due_hour(project: Project) -> None:
    due = datetime(2026, 1, 10, 12, tzinfo=UTC)
    cursor = None
    requested = []
    for hours in (-1, -0.01, 0.01, 9):
        result = dg.evaluate_automation_conditions(
            project.defs,
            project.instance,
            asset_selection=dg.AssetSelection.all_asset_checks(),
            evaluation_time=due + timedelta(hours=hours),
            cursor=cursor,
        )
        cursor = result.cursor
        requested.append({each.key for each in result.results if not each.true_subset.is_empty})
    assert requested == [
        set(),
        set(),
        {
            dg.AssetCheckKey(dg.AssetKey(["later", asset]), check)
            for asset, check in ALL_CHECKS
            if check not in CHECKED_BY_RUNS
        },
        set(),
    ]
