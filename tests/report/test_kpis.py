"""Key figures and tables of a report, compared with a slow reference."""

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from later_reporting_dagster.contract import DEFAULT_METRICS, METRICS, Metric
from later_reporting_dagster.lake import CAMPAIGNS_TABLE, Lake, Partition, posts_schema
from later_reporting_dagster.report.kpis import kpis_markdown, lift_interval, report_kpis
from later_reporting_dagster.report.report_data import _rows_in_memory, read_report
from tests.report.posts import (
    AS_OF,
    METRICS_TABLE,
    PUBLISHED_TABLE,
    day_before,
    one_post,
    random_files,
    report_data,
    row,
)
from tests.report.report_reference import recorded, select_rows

NOW, BEFORE = range(28), range(28, 56)


def near(value: Any) -> Any:
    return None if value is None else pytest.approx(float(value), rel=1e-9, abs=1e-4)


def test_report_kpis_equal_the_reference() -> None:
    files = random_files(7)
    now, before = (recorded(select_rows(files, METRICS_TABLE, ages)) for ages in (NOW, BEFORE))
    data = report_data(files)
    found = report_kpis(data)
    assert len(found) == 9
    for kpi in found:
        assert kpi.value == near(now[kpi.name]), kpi
        assert kpi.previous == near(before[kpi.name]), kpi
    interval = lift_interval(data)
    verdict = interval["paid_lift_verdict"]
    assert (verdict and str(verdict).replace("_", " ")) == now["paid_lift_verdict"]


def test_report_kpis_leave_an_incomplete_previous_period_out() -> None:
    found = report_kpis(report_data(random_files(1, days=13)))
    assert all(kpi.previous is None for kpi in found)
    assert any(kpi.value for kpi in found)


def test_report_kpis_distinguish_null_from_zero() -> None:
    data = report_data(one_post())
    assert {kpi.value for kpi in report_kpis(data)} == {None}
    zero = report_kpis(report_data(one_post(impressions=0, engagements=0)))
    assert [kpi.value for kpi in zero] == [0, None, None, 0, None, None, None, None, None]


def test_kpis_markdown_is_a_table() -> None:
    nothing = kpis_markdown(report_kpis(report_data(one_post(impressions=0))))
    assert "| Organic impressions | 0 | not available |" in nothing
    assert "| Paid lift | not available | not available |" in nothing


def test_creators_have_the_name_and_profile_of_their_newest_post() -> None:
    files = one_post(creator_content_type="tiktok", creator_full_name="New", creator_handle_name="n")
    old = {**files[PUBLISHED_TABLE, AS_OF, "a"][0], "creator_full_name": "Old", "creator_handle_name": "o"}
    files[PUBLISHED_TABLE, day_before(2), "a"] = [old | {"post_id": 2}]
    for order in (files, dict(reversed(files.items()))):
        (creator,) = report_data(order).creators
        assert (creator.name, [profile.handle for profile in creator.profiles]) == ("New", ["n"])


def test_creators_without_published_posts_are_named_by_recorded_rows() -> None:
    files = one_post()
    files[METRICS_TABLE, AS_OF, "a"] += [row(creator_id=9, post_id=9, campaign_id=7, creator_full_name="Recorded")]
    assert [creator.name for creator in report_data(files).creators] == [None, "Recorded"]


def test_creators_are_the_hundred_with_the_most_impressions() -> None:
    files = one_post(impressions=1000)
    files[METRICS_TABLE, AS_OF, "a"] += [
        row(creator_id=number, post_id=number, campaign_id=7, impressions=number) for number in range(2, 200)
    ]
    shown = report_data(files).tables["creators"].to_pylist()
    weeks = [each for each in shown if each["window"] == "7d" and each["campaign_id"] is None]
    assert sorted(each["impressions"] for each in weeks) == [*range(101, 200), 1000]


def test_previous_period_has_to_be_complete_in_the_daily_metrics() -> None:
    files = random_files(2, days=60, most_posts=1)
    recent = {key: rows for key, rows in files.items() if key[0] == PUBLISHED_TABLE or day_before(40) < key[1]}
    data = report_data(recent)
    assert (data.days, data.metrics_days, data.initial_period) == (60, 40, 7)
    months = [each for each in data.tables["kpis"].to_pylist() if each["window"] == "28d"]
    assert months
    assert {each["previous_organic_impressions"] for each in months} == {None}


def test_failure_to_read_the_first_table_is_raised() -> None:
    with duckdb.connect() as connection:
        connection.execute("CREATE VIEW post_metrics_daily AS SELECT error('cannot be read') AS date")
        connection.execute("CREATE VIEW posts_published AS SELECT 1 AS date")
        with pytest.raises(duckdb.Error, match="not found"), _rows_in_memory(connection, DEFAULT_METRICS):
            pass


def test_campaigns_with_equal_ids_of_two_instances_are_distinct() -> None:
    files = one_post(impressions=1) | {(table, day, "b"): [] for table, day, _ in one_post()}
    files[METRICS_TABLE, AS_OF, "b"] = [row(instance_id="b", campaign_id=7, creator_id=1, impressions=20)]
    data = report_data(files)
    assert data.campaigns == [("a", 7), ("b", 7)]
    assert [creator.instance_id for creator in data.creators] == ["a", "b"]
    assert report_kpis(data)[0].value == 21


@pytest.mark.parametrize("metrics", [DEFAULT_METRICS, METRICS])
def test_coverage_has_the_requested_metrics(metrics: tuple[Metric, ...]) -> None:
    data = report_data(one_post(likes=3), metrics=metrics)
    assert data.metrics == metrics
    assert ("likes" in data.tables["coverage"].column_names) is (metrics == METRICS)


def test_damaged_table_of_campaigns_leaves_numbers(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    partition = Partition(AS_OF, "a")
    lake.write(METRICS_TABLE, partition, pa.Table.from_pylist([row(impressions=5)], schema=posts_schema(METRICS)))
    (tmp_path / CAMPAIGNS_TABLE).mkdir()
    (tmp_path / CAMPAIGNS_TABLE / "part-0.parquet").write_bytes(b"not Parquet")
    data = read_report(lake, {METRICS_TABLE: [partition]}, memory_gb=1)
    assert (data.campaigns, data.campaign_details) == ([("a", 1)], {})
