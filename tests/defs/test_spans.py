"""The rollups of weeks and months, run for real on what has landed."""

from datetime import date
from fractions import Fraction
from typing import Any

import pyarrow.parquet as pq
import pytest

from later_reporting_dagster.defs.partitions import span_partitions
from later_reporting_dagster.lake import Partition, schema_of
from later_reporting_dagster.rollups import MONTHLY, WEEKLY, Span
from tests.conftest import INSTANCE_IDS, Row, Service, Truth, files
from tests.defs.conftest import DAYS, KEYS, Project, failure, values
from tests.rollups.reference import over_days

RAW = "post_metrics_daily"
WEEK, NEXT_WEEK, MONTH = date(2024, 2, 26), date(2024, 3, 4), date(2024, 3, 1)
SPANS = {"organic_paid_weekly": WEEK, "organic_paid_monthly": MONTH}

both_spans = pytest.mark.parametrize("asset", SPANS)


def stored(project: Project, asset: str, first: date) -> list[Row]:
    rows: list[Row] = pq.ParquetFile(project.root / asset / f"date={first}" / "part-0.parquet").read().to_pylist()
    return rows


def close_to(value: Any) -> Any:
    return pytest.approx(float(value), rel=1e-9, abs=1e-6) if isinstance(value, Fraction) else value


@both_spans
def test_it_is_what_the_plain_reference_says_of_the_service_s_own_rows(
    asset: str, project: Project, truth: Truth
) -> None:
    project.fetch(RAW)
    result = project.roll_up_span(asset, SPANS[asset], SPANS[asset])
    assert result.success
    rows = [row for day in DAYS for each in INSTANCE_IDS for row in truth.partition("performance_date", day, each)]
    found, expected = stored(project, asset, SPANS[asset]), over_days(rows)
    assert found == [{name: close_to(group[name]) for name in found[0]} for group in expected]
    posts = {(row["instance_id"], row["campaign_id"], row["post_id"]) for row in rows}
    assert sum(group["posts"] for group in found) == len(posts) < len(rows)
    told = values(project.materializations(result)[str(SPANS[asset])])
    assert (told["rows"], told["posts"], told["days"], told["instances"]) == (len(found), len(posts), 3, 4)
    assert told["total/paid_impressions"] == sum(row["paid_impressions"] or 0 for row in rows)
    assert project.verdicts(result)["reconciles_with_raw_rows"] is True


@both_spans
def test_it_is_in_sync_with_its_days_until_one_of_them_changes(asset: str, project: Project, service: Service) -> None:
    project.fetch(RAW)
    project.roll_up("organic_paid_daily")
    project.roll_up_span(asset, SPANS[asset], SPANS[asset])
    assert project.is_in_sync(asset, str(SPANS[asset]))
    project.fetch(RAW)
    project.roll_up("organic_paid_daily")  # and nothing has changed
    assert project.is_in_sync(asset, str(SPANS[asset]))
    service.edited = lambda _request, document: {
        **document,
        "data": [{**post, "impressions": 1_000_000, "engagements": 5} for post in document["data"]],
    }
    project.fetch(RAW, days=DAYS[1:2])
    project.roll_up("organic_paid_daily", days=DAYS[1:2])
    assert not project.is_in_sync(asset, str(SPANS[asset]))


def test_a_week_tells_the_days_that_are_missing(project: Project) -> None:
    project.fetch(RAW, days=DAYS[:1])
    project.fetch(RAW, days=DAYS[1:2], keys=KEYS[:3])
    result = project.roll_up_span("organic_paid_weekly", WEEK, WEEK)
    assert result.success
    told = values(project.materializations(result)[str(WEEK)])
    assert (told["first_day"], told["last_day"], told["days"]) == ("2024-02-26", "2024-03-03", 2)
    everyone = list(INSTANCE_IDS)
    assert told["missing_days"] == {
        **{f"2024-02-{day}": everyone for day in (26, 27, 28, 29)},
        "2024-03-02": everyone[3:],
        "2024-03-03": everyone,
    }


def test_a_week_without_posts_fails_alone(project: Project) -> None:
    project.fetch(RAW)
    result = project.roll_up_span("organic_paid_weekly", WEEK, NEXT_WEEK)
    description, metadata = failure(result)
    assert description.splitlines()[0] == "1 partition failed and stayed as before; 1 landed."
    assert metadata["failed_partitions"] == {
        str(NEXT_WEEK): f"no instance of later/{RAW} has landed for it: materialize that first"
    }
    assert set(project.materializations(result)) == {str(WEEK)}


def test_a_damaged_day_fails_its_week(project: Project) -> None:
    project.fetch(RAW)
    next((project.root / RAW / f"date={DAYS[1]}").rglob("*.parquet")).write_bytes(b"no Parquet")
    _, metadata = failure(project.roll_up_span("organic_paid_weekly", WEEK, WEEK))
    assert "materialize this partition again" in metadata["failed_partitions"][str(WEEK)]


@both_spans
def test_a_rerun_changes_no_byte_and_no_data_version(asset: str, project: Project) -> None:
    project.fetch(RAW)
    first = project.roll_up_span(asset, SPANS[asset], SPANS[asset])
    before = files(project.root)
    second = project.roll_up_span(asset, SPANS[asset], SPANS[asset])
    assert files(project.root) == before
    assert project.data_versions(first) == project.data_versions(second)
    assert values(project.materializations(second)[str(SPANS[asset])])["changed"] is False


@both_spans
def test_it_is_red_when_a_day_was_restated_and_when_it_was_tampered_with(asset: str, project: Project) -> None:
    project.fetch(RAW)
    project.roll_up_span(asset, SPANS[asset], SPANS[asset])
    key = (asset, "reconciles_with_raw_rows")
    (told,) = project.check(key).values()
    assert told.passed
    assert told.description in ("1 week equals its raw rows", "1 month equals its raw rows")
    partition = Partition(SPANS[asset])
    schema = schema_of(WEEKLY.columns)
    project.lake.write(asset, partition, project.lake.read(asset, [partition], schema=schema).slice(1))
    (told,) = project.check(key).values()
    assert not told.passed
    assert (told.description or "").endswith(f"materialize {SPANS[asset]}")
    next((project.root / RAW / f"date={DAYS[1]}").rglob("*.parquet")).write_bytes(b"no Parquet")
    (told,) = project.check(key).values()
    assert "is damaged" in told.metadata["differences"].value[str(SPANS[asset])][0]


@pytest.mark.parametrize(
    ("span", "start", "first"),
    [
        (Span.WEEK, date(2024, 3, 1), "2024-02-26"),
        (Span.WEEK, date(2024, 3, 4), "2024-03-04"),
        (Span.MONTH, date(2024, 3, 9), "2024-03-01"),
        (Span.DAY, date(2024, 3, 9), "2024-03-09"),
    ],
)
def test_the_first_partition_holds_the_first_day(span: Span, start: date, first: str) -> None:
    partitions = span_partitions(span, start)
    assert partitions.get_first_partition_key() == first
    assert MONTHLY.span is Span.MONTH
