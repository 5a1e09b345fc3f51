"""Fetching whole periods of campaigns and accounts over HTTP: each equals what the sandbox returns for it."""

import asyncio
from calendar import monthrange
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from later_reporting_dagster.contract import CURSOR, DEFAULT_CAMPAIGN_METRICS, Metric
from later_reporting_dagster.contract.days import refetch_ages, utc_now
from later_reporting_dagster.contract.instances import Instances
from later_reporting_dagster.contract.metrics import ACCOUNT_METRICS
from later_reporting_dagster.ingest import periods as periods_module
from later_reporting_dagster.ingest import periods_file
from later_reporting_dagster.ingest.decide import WriteLimits
from later_reporting_dagster.ingest.periods import months, periods_to_fetch, queries_of, windows
from later_reporting_dagster.ingest.periods_file import REFUSAL_DAYS, PeriodsFile, StoredPeriods, read_periods
from later_reporting_dagster.ingest.progress import Progress, RouteRefused
from later_reporting_dagster.ingest.slices import Period
from later_reporting_dagster.lake import CAMPAIGN_PERIODS_TABLE, Lake
from later_reporting_dagster.lake.file_metadata import FetchedMonth
from later_reporting_dagster.lake.tables import ACCOUNT_PERIODS, CAMPAIGN_PERIODS, PeriodsTable
from tests.conftest import INSTANCE_IDS, Row, Service, both_api_versions, files, parameters, problem
from tests.ingest.conftest import DEFAULT_LIMITS, PERFORMANCE_PATH, client_of, served_performance, with_performance_of
from tests.server.lake_store.clients import days_query, get

START, NEWEST = date(2023, 10, 1), date(2024, 3, 10)
NEXT = NEWEST + timedelta(days=1)
# Windows with their lengths, newest first; the period before each but the longest has as many days.
LENGTHS = {"7d": 7, "28d": 28, "90d": 90, "365d": 365, "730d": 730}
WEEK = "performance_date", "7d"
RECORDED, PUBLISHED = "recorded_month", "published_month"
SECOND = timedelta(seconds=1)


async def ingest_periods(
    service: Service,
    lake: Lake,
    periods: Sequence[Period],
    *,
    table: PeriodsTable = CAMPAIGN_PERIODS,
    instance_ids: tuple[str, ...] = (),
    metrics: tuple[Metric, ...] = DEFAULT_CAMPAIGN_METRICS,
    limits: WriteLimits = DEFAULT_LIMITS,
    listed: Sequence[str] = (),
    **options: Any,
) -> tuple[PeriodsFile, Progress]:
    """Fetch periods; return the file, and what the run logs."""
    progress = Progress(table.name)
    instances = Instances(configured=frozenset(instance_ids), listed=frozenset(listed) if listed else None)
    stored = read_periods(lake, table)
    file = PeriodsFile(periods=table, lake=lake, stored=stored, metrics=metrics, instances=instances)
    asked = queries_of(table, periods, instances)
    async with client_of(service, **options) as client:
        await periods_module.ingest_periods(asked, file, client=client, limits=limits, progress=progress)
    return file, progress


def stored_periods(root: Path) -> StoredPeriods:
    return read_periods(Lake(str(root)), CAMPAIGN_PERIODS)


def fetch(service: Service, root: Path, *, newest: date = NEWEST, **options: Any) -> tuple[PeriodsFile, Progress]:
    """Fetch what a run on the day after `newest` fetches."""
    periods = campaigns_to_fetch(stored_periods(root), newest=newest)
    return asyncio.run(ingest_periods(service, Lake(str(root)), periods, **options))


def campaigns_to_fetch(
    stored: StoredPeriods, *, newest: date = NEWEST, ages: Sequence[int] = (28,), **options: Any
) -> list[Period]:
    options = {"instances": Instances(), **options}
    return periods_to_fetch(stored, CAMPAIGN_PERIODS, start_date=START, newest=newest, ages=ages, **options)


def stored(root: Path) -> list[Row]:
    rows: list[Row] = pq.ParquetFile(root / CAMPAIGN_PERIODS_TABLE / "part-0.parquet").read().to_pylist()
    return rows


def without_times(rows: Sequence[Row]) -> list[Row]:
    return [{name: value for name, value in row.items() if name != "fetched_at"} for row in rows]


def by_period(root: Path) -> dict[tuple[str, str, date, date], dict[int, Row]]:
    """Return the metrics of each campaign, by period."""
    found: dict[tuple[str, str, date, date], dict[int, Row]] = {}
    for row in stored(root):
        *key, campaign_id = (row.pop(name) for name in ("date_basis", "period", "first_day", "last_day", "campaign_id"))
        assert row.pop("fetched_at") is not None
        found.setdefault((key[0], key[1], key[2], key[3]), {})[campaign_id] = row | {"extra": None}
    return found


def expected_periods(newest: date) -> list[tuple[str, str, date, date]]:
    """Return what the table has once `newest` was fetched, if all months since the start date have campaigns."""
    found = []
    for name, days in LENGTHS.items():
        first = newest - timedelta(days=days - 1)
        found.append(("performance_date", name, first, newest))
        if name != "730d":
            found.append(("performance_date", f"previous_{name}", first - timedelta(days), first - timedelta(1)))
    for year, month in ((2023, 10), (2023, 11), (2023, 12), (2024, 1), (2024, 2), (2024, 3)):
        last = date(year, month, monthrange(year, month)[1])
        kinds = (("performance_date", RECORDED), ("post_date", PUBLISHED))
        found += [(*kind, date(year, month, 1), min(last, newest)) for kind in kinds]
    return found


def expected(api: httpx.Client, period: tuple[str, str, date, date], *instance_ids: str) -> dict[int, Row]:
    """Return the metrics that the sandbox serves for a period, as they should be stored."""
    date_basis, _, first, last = period
    served = served_performance(api, date_basis, first, last, *instance_ids)
    return {campaign_id: {**row, "extra": None} for campaign_id, row in served.items()}


def fail(*first_days: date) -> Callable[[Request], Response | None]:
    days = [[str(day)] for day in first_days]
    return lambda request: problem(503) if parameters(request).get("startDate") in days else None


@both_api_versions
def test_periods_equal_what_the_api_returns_for_each(service: Service, api: httpx.Client, tmp_path: Path) -> None:
    result, progress = fetch(service, tmp_path)
    assert (result.failed, progress.warnings, service.request_count(PERFORMANCE_PATH)) == ({}, [], 9 + 6 + 6)
    truth = {period: expected(api, period) for period in expected_periods(NEWEST)}
    assert by_period(tmp_path) == {period: rows for period, rows in truth.items() if rows}
    before = files(tmp_path)
    service.requests.clear()
    fetch(service, tmp_path)
    assert (files(tmp_path), service.request_count(PERFORMANCE_PATH)) == (before, 9 + 3 + 3)


def test_older_months_are_fetched_once_also_without_campaigns(service: Service, tmp_path: Path) -> None:
    def months_requested() -> list[str]:
        """Return the months, each of which has to be requested by both dates."""
        found = [parameters(each) for each in service.requests if each.url.path == PERFORMANCE_PATH]
        service.requests.clear()
        days = [(*values["dateBasis"], *values["startDate"], *values["endDate"]) for values in found]
        months = sorted((first, last) for basis, first, last in days if basis == "post_date")
        assert {("performance_date", *days_of_month) for days_of_month in months} <= {*days}
        return [first for first, _ in months]

    all_months = ["2023-10-01", "2023-11-01", "2023-12-01", "2024-01-01", "2024-02-01", "2024-03-01"]
    fetch(service, tmp_path, newest=date(2024, 2, 20))
    assert months_requested() == all_months[:-1]
    fetch(service, tmp_path, newest=date(2024, 2, 21))
    assert months_requested() == all_months[2:-1]
    # Once it is among the older months, February is fetched again, because it had not ended.
    fetch(service, tmp_path, newest=date(2024, 6, 1))
    assert months_requested() == ["2024-02-01", "2024-03-01", "2024-04-01", "2024-05-01", "2024-06-01"]
    fetch(service, tmp_path, newest=date(2024, 6, 2))
    assert months_requested() == ["2024-04-01", "2024-05-01", "2024-06-01"]
    again = campaigns_to_fetch(stored_periods(tmp_path), newest=date(2024, 6, 2), all_months=True)
    assert [sum(period.name == name for period in again) for name in (RECORDED, PUBLISHED)] == [9, 9]
    assert {key[3] for key in by_period(tmp_path) if key[2] == date(2024, 2, 1)} == {date(2024, 2, 29)}


def test_an_older_month_is_fetched_again_at_the_ages_of_old_days(service: Service, tmp_path: Path) -> None:
    fetch(service, tmp_path, newest=date(2024, 2, 20))
    stored, ages = stored_periods(tmp_path), refetch_ages(28, 1.5, oldest=1_100)
    # As if it had been fetched on the day after its end, when it was last seen to change.
    month = (RECORDED, date(2023, 11, 1))
    fetched = {**stored.fetched_months, month: FetchedMonth(date(2023, 12, 1), [])}

    def older_months(today: date) -> list[date]:
        found = campaigns_to_fetch(StoredPeriods(stored.rows, fetched), newest=today - timedelta(1), ages=ages)
        assert not [each for each in found if each.name == PUBLISHED][3:]
        return [each.first_day for each in found if each.name == RECORDED][3:]

    assert older_months(date(2024, 2, 21)) == [date(2023, 11, 1)]
    fetched[month] = FetchedMonth(date(2024, 2, 21), [])  # at the age of 83 days
    assert older_months(date(2024, 2, 22)) == []
    assert older_months(date(2024, 3, 2)) == []
    assert date(2023, 11, 1) in older_months(date(2024, 3, 3))  # of 94 days


def test_months_are_fetched_again_for_an_instance_that_came_into_reach(service: Service, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    everything = [*months(START, NEWEST)]
    asyncio.run(ingest_periods(service, lake, everything, instance_ids=INSTANCE_IDS[:2]))

    def older_months(*instances: str) -> int:
        due = campaigns_to_fetch(stored_periods(tmp_path), instances=Instances(listed=frozenset(instances)))
        kinds = {sum(period.name == name for period in due) - 3 for name in (RECORDED, PUBLISHED)}
        assert len(kinds) == 1
        return kinds.pop()

    assert older_months(*INSTANCE_IDS[:2]) == 0
    assert older_months(*INSTANCE_IDS[1:3]) == 3
    asyncio.run(ingest_periods(service, lake, everything, listed=INSTANCE_IDS))
    assert older_months(*INSTANCE_IDS) == 0


def test_the_kinds_of_month_are_recorded_apart(service: Service, tmp_path: Path) -> None:
    """A month that failed by one of the two dates is fetched again by that date only."""
    is_recorded = {"startDate": ["2023-11-01"], "dateBasis": ["performance_date"]}.items()
    service.override = lambda request: problem(503) if is_recorded <= parameters(request).items() else None
    result, _ = fetch(service, tmp_path)
    assert [*result.failed] == ["recorded_month 2023-11-01 to 2023-11-30"]
    due = campaigns_to_fetch(stored_periods(tmp_path))
    older = [(each.name, each.first_day) for each in due if each.first_day < date(2024, 1, 1) and "month" in each.name]
    assert older == [(RECORDED, date(2023, 11, 1))]


def test_months_of_a_file_with_one_kind_are_those_by_post_date(service: Service, tmp_path: Path) -> None:
    fetch(service, tmp_path)
    lake, rows = Lake(str(tmp_path)), stored(tmp_path)
    fetched = lake.read_metadata(CAMPAIGN_PERIODS_TABLE)
    assert fetched is not None
    of_one = [row | {"period": row["period"].replace(PUBLISHED, "month")} for row in rows if row["period"] != RECORDED]
    metadata = {"months": fetched.key_values["months"]}
    old = pa.Table.from_pylist(of_one, schema=CAMPAIGN_PERIODS.schema)
    lake.write_table(CAMPAIGN_PERIODS_TABLE, old, metadata=metadata, replaces_metadata=True)
    service.requests.clear()
    fetch(service, tmp_path)
    assert service.request_count(PERFORMANCE_PATH) == 9 + 6 + 3
    assert {key[:2] for key in by_period(tmp_path) if "month" in key[1]} == {
        ("performance_date", RECORDED),
        ("post_date", PUBLISHED),
    }
    assert without_times(stored(tmp_path)) == without_times(rows)


def test_a_failed_period_keeps_its_rows_and_affects_no_other(
    service: Service, api: httpx.Client, tmp_path: Path
) -> None:
    fetch(service, tmp_path)
    before = by_period(tmp_path)
    month, week = date(2024, 2, 1), NEXT - timedelta(days=6)
    service.override = fail(month, week)
    result, _ = fetch(service, tmp_path, newest=NEXT)
    days_of_month = (month, date(2024, 2, 29))
    failed = [f"7d {week} to {NEXT}", *(f"{name} 2024-02-01 to 2024-02-29" for name in (RECORDED, PUBLISHED))]
    assert sorted(result.failed) == sorted(failed)
    after = by_period(tmp_path)
    kept = [
        (*WEEK, NEWEST - timedelta(days=6), NEWEST),
        ("performance_date", RECORDED, *days_of_month),
        ("post_date", PUBLISHED, *days_of_month),
    ]
    assert all(after[period] == before[period] for period in kept)
    newer = [each for each in expected_periods(NEXT) if each[2] not in (month, week)]
    assert after == {period: before[period] for period in kept} | {
        period: rows for period in newer if (rows := expected(api, period))
    }


def test_file_stays_if_all_periods_fail(service: Service, tmp_path: Path) -> None:
    service.override = lambda request: problem(503) if request.url.path == PERFORMANCE_PATH else None
    result, _ = fetch(service, tmp_path)
    assert (result.written, len(result.failed)) == (None, 21)
    assert files(tmp_path) == {}
    assert service.request_count(PERFORMANCE_PATH) <= 2 * (1 + 8 + 4)


def test_bad_row_is_quarantined_until_the_api_corrects_it(service: Service, tmp_path: Path) -> None:
    lake, good, bad = Lake(str(tmp_path)), {"campaignId": 1, "paidAdSpend": 5}, {"campaignId": 2, "paidAdSpend": 10**12}
    service.override = with_performance_of(good, bad)
    assert fetch(service, tmp_path)[0].failed == {}
    assert {row["campaign_id"] for row in stored(tmp_path)} == {1}
    quarantined = lake.quarantine.rows(CAMPAIGN_PERIODS_TABLE)
    assert {row.reason for row in quarantined} == {"paidAdSpend is not at most 1,000,000,000: 1000000000000"}
    assert {row.day_range for row in quarantined} == {key[2:] for key in expected_periods(NEWEST)}
    strict, _ = fetch(service, tmp_path, newest=NEXT, limits=WriteLimits(max_bad_rows_percent=10))
    assert len(strict.failed) == 9 + 3 + 3
    service.override = with_performance_of(good, good | {"campaignId": 2})
    fetch(service, tmp_path, newest=NEXT)
    # Those of older months, which are not fetched again.
    assert {row.day_range for row in lake.quarantine.rows(CAMPAIGN_PERIODS_TABLE)} == {
        (date(2023, 10, 1), date(2023, 10, 31)),
        (date(2023, 11, 1), date(2023, 11, 30)),
        (date(2023, 12, 1), date(2023, 12, 31)),
    }


def test_a_month_without_bad_rows_leaves_those_of_the_other_kind(service: Service, tmp_path: Path) -> None:
    lake, good, bad = Lake(str(tmp_path)), {"campaignId": 1, "paidAdSpend": 5}, {"campaignId": 2, "paidAdSpend": 10**12}
    service.override = with_performance_of(good, bad)
    both = [*months(date(2024, 2, 1), date(2024, 2, 29))]
    asyncio.run(ingest_periods(service, lake, both))
    service.override = with_performance_of(good)
    for left, period in ((1, both[0]), (0, both[1])):
        asyncio.run(ingest_periods(service, lake, [period]))
        assert len(lake.quarantine.rows(CAMPAIGN_PERIODS_TABLE)) == left


def test_rows_and_what_is_odd_about_them_are_counted(service: Service, tmp_path: Path) -> None:
    service.override = with_performance_of({"campaignId": 1, "reach": "7"}, {"campaignId": 2, "reach": 10**12})
    _, progress = fetch(service, tmp_path)
    assert +progress.rows_by_fate == {"received": 42, "written": 21, "quarantined": 21}
    assert progress.oddities == {"reach spelled otherwise": 21}


def test_metrics_that_are_no_longer_requested_stay_in_older_months(service: Service, tmp_path: Path) -> None:
    service.override = with_performance_of({"campaignId": 1, "paidAdSpend": 5, "reach": 7})
    fetch(service, tmp_path)
    fetch(service, tmp_path, newest=NEXT, metrics=DEFAULT_CAMPAIGN_METRICS[:8])
    months_with_reach = [row["first_day"] for row in stored(tmp_path) if row["reach"] is not None]
    assert months_with_reach == [date(2023, 10, 1), date(2023, 11, 1), date(2023, 12, 1)] * 2


def test_an_older_response_never_replaces_a_newer_one(service: Service, tmp_path: Path) -> None:
    now = datetime(2024, 3, 11, 6, tzinfo=UTC)
    row = {"campaignId": 1, "paidAdSpend": 2}
    for requested_at, rows in ((now, [row]), (now - SECOND, [row | {"paidAdSpend": 1}]), (now - SECOND, [])):
        service.override = with_performance_of(*rows)
        writer, _ = fetch(service, tmp_path, clock=requested_at.timestamp)
        assert writer.failed == {}
    assert {(row["paid_ad_spend"], row["fetched_at"]) for row in stored(tmp_path)} == {(2, now)}


def test_a_clock_that_was_wrong_once_freezes_no_period(service: Service, tmp_path: Path) -> None:
    future = datetime.now(UTC) + timedelta(days=400)
    service.override = with_performance_of({"campaignId": 1, "paidAdSpend": 1})
    fetch(service, tmp_path, clock=future.timestamp)
    older = [*months(START, NEWEST)][6:]
    due = campaigns_to_fetch(stored_periods(tmp_path))
    assert {*older} <= {*due}
    service.override = with_performance_of({"campaignId": 1, "paidAdSpend": 2})
    _, progress = fetch(service, tmp_path)
    assert {row["paid_ad_spend"] for row in stored(tmp_path)} == {2}
    assert len(progress.warnings) == 1


def test_runs_at_the_same_time_lose_no_period(service: Service, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    asyncio.run(ingest_periods(service, lake, [*months(date(2024, 3, 1), NEWEST)]))

    async def run_all() -> list[tuple[PeriodsFile, Progress]]:
        periods = (period for period in windows(NEWEST) if period.name in LENGTHS)
        return await asyncio.gather(*(ingest_periods(service, lake, [period]) for period in periods))

    assert all(not result.failed for result, _ in asyncio.run(run_all()))
    assert {key[1] for key in by_period(tmp_path)} == {RECORDED, PUBLISHED, *LENGTHS}


@pytest.mark.parametrize(("later_by", "fate"), [(-SECOND, "failed"), (SECOND, "newer")])
def test_a_period_that_another_run_wrote_meanwhile_is_judged_again(
    later_by: timedelta, fate: str, service: Service, tmp_path: Path
) -> None:
    lake, now, month = (
        Lake(str(tmp_path)),
        datetime(2024, 3, 11, 6, tzinfo=UTC),
        [*months(date(2024, 3, 1), NEWEST)][:1],
    )
    many = [{"campaignId": number, "paidAdSpend": 5} for number in range(30)]
    service.override = with_performance_of(*many)
    asyncio.run(ingest_periods(service, lake, month, clock=(now + later_by).timestamp))
    rows, path = stored(tmp_path), tmp_path / CAMPAIGN_PERIODS_TABLE / "part-0.parquet"
    written = path.read_bytes()
    path.unlink()

    def write_meanwhile(request: Request) -> Response | None:
        path.write_bytes(written)
        return with_performance_of(many[0])(request)

    service.override = write_meanwhile
    file, progress = asyncio.run(ingest_periods(service, lake, month, clock=now.timestamp))
    assert stored(tmp_path) == rows
    assert len(file.failed) == (fate == "failed")
    assert {name: getattr(progress, name) for name in ("written", "newer", "failed")} == {
        **{"written": 0, "newer": 0, "failed": 0},
        fate: 1,
    }
    assert +progress.rows_by_fate == {"received": 1, fate: 1}


def test_a_period_that_failed_before_the_route_was_refused_is_reported(service: Service, tmp_path: Path) -> None:
    periods = [*windows(NEWEST)]
    first = [str(periods[0].first_day)]

    def refuse(request: Request) -> Response | None:
        is_first = parameters(request).get("startDate") == first
        return problem(503 if is_first else 404) if request.url.path == PERFORMANCE_PATH else None

    service.override = refuse
    lake, progress = Lake(str(tmp_path)), Progress(CAMPAIGN_PERIODS.name)
    file = PeriodsFile(
        periods=CAMPAIGN_PERIODS, lake=lake, stored=stored_periods(tmp_path), metrics=DEFAULT_CAMPAIGN_METRICS
    )

    async def run() -> None:
        async with client_of(service) as client:
            await periods_module.ingest_periods(periods, file, client=client, limits=DEFAULT_LIMITS, progress=progress)

    with pytest.raises(RouteRefused):
        asyncio.run(run())
    assert ([*file.failed], progress.failed) == ([str(periods[0])], 1)


def test_a_period_that_is_refused_after_others_fails_alone(service: Service, tmp_path: Path) -> None:
    fetch(service, tmp_path)
    service.override = lambda request: problem(404) if parameters(request).get("startDate") == ["2024-02-01"] else None
    result, progress = fetch(service, tmp_path)
    assert sorted(result.failed) == [f"{name} 2024-02-01 to 2024-02-29" for name in sorted((RECORDED, PUBLISHED))]
    assert (progress.written, progress.failed) == (9 + 2 + 2, 2)


# Accounts

ACCOUNT_PATH = "/v2/instances/performance"


def fetch_accounts(
    service: Service, root: Path, *, instances: Sequence[str] = INSTANCE_IDS, newest: date = NEWEST
) -> PeriodsFile:
    """Fetch what a run on the day after `newest` fetches."""
    lake = Lake(str(root))
    stored = read_periods(lake, ACCOUNT_PERIODS)
    named = Instances(listed=frozenset(instances))
    periods = periods_to_fetch(stored, ACCOUNT_PERIODS, start_date=START, newest=newest, ages=[28], instances=named)
    options: dict[str, Any] = {"table": ACCOUNT_PERIODS, "metrics": ACCOUNT_METRICS, "listed": instances}
    return asyncio.run(ingest_periods(service, lake, periods, **options))[0]


def stored_accounts(root: Path) -> dict[tuple[str, date, str], Row]:
    rows: list[Row] = pq.ParquetFile(root / ACCOUNT_PERIODS.name / "part-0.parquet").read().to_pylist()
    found = {(row["period"], row["first_day"], row["instance_id"]): row for row in rows}
    assert len(found) == len(rows)
    return found


@both_api_versions
def test_each_row_is_the_answer_for_its_instances_and_days(service: Service, tmp_path: Path, api: httpx.Client) -> None:
    assert not fetch_accounts(service, tmp_path).failed
    rows = stored_accounts(tmp_path)
    for name, days in (("7d", 7), ("28d", 28)):
        first = NEWEST - timedelta(days=days - 1)
        for instance_id in (*INSTANCE_IDS, ""):
            row = rows[name, first, instance_id]
            ids = [("instanceIds[]", each) for each in ([instance_id] if instance_id else INSTANCE_IDS)]
            query = days_query(first, NEWEST, ("dateBasis", "performance_date"), *ids)
            answer = get(api, query, ACCOUNT_PATH).json()["data"]
            assert {metric.column: row[metric.column] for metric in ACCOUNT_METRICS} == {
                metric.column: answer[metric.api_name] for metric in ACCOUNT_METRICS
            }
            assert (row["scope"], row["last_day"], row["extra"]) == ("instance" if instance_id else "all", NEWEST, None)
            assert row["date_basis"] == "performance_date"
    # Two windows and three months of each instance; of all, five windows, four before them, and six months.
    assert service.request_count(ACCOUNT_PATH) == len(INSTANCE_IDS) * 5 + 15


def test_a_second_run_asks_for_no_older_month_again(service: Service, tmp_path: Path) -> None:
    fetch_accounts(service, tmp_path)
    service.requests.clear()
    fetch_accounts(service, tmp_path, newest=NEWEST + timedelta(days=1))
    assert service.request_count(ACCOUNT_PATH) == len(INSTANCE_IDS) * 5 + 12
    windows = [key for key in stored_accounts(tmp_path) if key[0] == "7d"]
    assert {first for _, first, _ in windows} == {NEWEST - timedelta(days=5)}
    assert len(windows) == len(INSTANCE_IDS) + 1


@pytest.mark.parametrize(
    ("instances", "together", "of_each"),
    [
        (["a"], 0, 15),  # the only one has all windows and months
        (["a", "b"], 15, 5),
        ([f"{number:050}" for number in range(200)], 0, 5),  # their ids do not fit one URL
    ],
)
def test_windows_and_months_of_an_account_are_those_of_all_or_of_the_only_one(
    instances: Sequence[str], together: int, of_each: int
) -> None:
    named = Instances(listed=frozenset(instances))
    stored = StoredPeriods(ACCOUNT_PERIODS.schema.empty_table())
    periods = periods_to_fetch(stored, ACCOUNT_PERIODS, start_date=START, newest=NEWEST, ages=[28], instances=named)
    asked = queries_of(ACCOUNT_PERIODS, periods, named)
    assert sum(not period.subject for period in asked) == together
    assert sum(bool(period.subject) for period in asked) == of_each * len(instances)


def test_totals_of_all_say_whose_they_are_and_are_fetched_again_for_others(service: Service, tmp_path: Path) -> None:
    def older_months() -> int:
        asked = [parameters(each) for each in service.requests if each.url.path == ACCOUNT_PATH]
        service.requests.clear()
        days = [each["startDate"][0] for each in asked if each["startDate"][0] != each["endDate"][0]]
        return sum(day in ("2023-10-01", "2023-11-01", "2023-12-01") for day in days)

    def whose() -> set[tuple[str, ...]]:
        rows = stored_accounts(tmp_path).values()
        assert {row["instance_ids"] is None for row in rows if row["scope"] == "instance"} == {True}
        return {tuple(row["instance_ids"]) for row in rows if row["scope"] == "all"}

    fetch_accounts(service, tmp_path)
    assert (whose(), older_months()) == ({tuple(sorted(INSTANCE_IDS))}, 3)
    two = tuple(sorted(INSTANCE_IDS[:2]))
    fetch_accounts(service, tmp_path, instances=two)
    assert (whose(), older_months()) == ({two}, 3)
    fetch_accounts(service, tmp_path, instances=two)
    assert (whose(), older_months()) == ({two}, 0)
    fetch_accounts(service, tmp_path, instances=two[:1])
    assert (whose(), older_months()) == (set(), 3)
    fetch_accounts(service, tmp_path, instances=two[:1])
    assert older_months() == 0


def test_a_failed_account_keeps_its_rows(service: Service, tmp_path: Path) -> None:
    fetch_accounts(service, tmp_path)
    before = stored_accounts(tmp_path)
    failing = INSTANCE_IDS[0]

    def fail(request: Request) -> Response | None:
        is_it = parameters(request).get("instanceIds", parameters(request).get("instanceIds[]")) == [failing]
        return problem(503) if request.url.path == ACCOUNT_PATH and is_it else None

    service.override = fail
    failed = fetch_accounts(service, tmp_path).failed
    assert len(failed) == 5
    assert all(name.endswith(f" of {failing}") for name in failed)
    assert stored_accounts(tmp_path) == before


def test_no_answer_empties_no_row(service: Service, tmp_path: Path) -> None:
    fetch_accounts(service, tmp_path)
    before = stored_accounts(tmp_path)
    body: dict[str, Any] = {"data": None}
    service.override = lambda request: JSONResponse(body) if request.url.path == ACCOUNT_PATH else None
    assert fetch_accounts(service, tmp_path).failed
    after = stored_accounts(tmp_path)
    with_results = {key for key, row in before.items() if row["impressions"] is not None}
    assert len(with_results) > 10
    assert {key: after[key] for key in with_results} == {key: before[key] for key in with_results}


def test_an_instance_out_of_reach_fails_with_the_totals_that_it_is_part_of(service: Service, tmp_path: Path) -> None:
    def forbid(request: Request) -> Response | None:
        asked = parameters(request).get("instanceIds[]", parameters(request).get("instanceIds", []))
        return problem(403) if request.url.path == ACCOUNT_PATH and "gone" in asked else None

    service.override = forbid
    failed = fetch_accounts(service, tmp_path, instances=(*INSTANCE_IDS, "gone")).failed
    assert sum(name.endswith(" of gone") for name in failed) == 5
    of_all = {name: reason for name, reason in failed.items() if " of " not in name}
    assert len(of_all) == len(failed) - 5 == 15
    assert all("'gone'" in reason for reason in of_all.values())
    # Totals of fewer would take the place of those of all.
    assert {row["scope"] for row in stored_accounts(tmp_path).values()} == {"instance"}
    asked = [parameters(request) for request in service.requests if request.url.path == ACCOUNT_PATH]
    assert all("instanceIds" in query or "instanceIds[]" in query for query in asked)


def refuse_campaigns_cost(request: Request) -> Response | None:
    """Respond as an API without this metric."""
    is_refused = request.url.path == ACCOUNT_PATH and "campaignsCost" in str(parameters(request).get("metrics"))
    return problem(400, "ANL_00400", "metrics must be one of engagements") if is_refused else None


@pytest.mark.parametrize("service", [CURSOR], indirect=True, ids=str)
def test_accepted_metrics_are_searched_for_once_in_four_weeks(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def requests(days_later: int = 0) -> int:
        monkeypatch.setattr(periods_file, "utc_now", lambda: utc_now() + timedelta(days=days_later))
        before = service.request_count(ACCOUNT_PATH)
        assert not fetch_accounts(service, tmp_path).failed
        return service.request_count(ACCOUNT_PATH) - before

    usual = requests()
    service.override = refuse_campaigns_cost
    # The query that is refused, impressions alone, and halves.
    searching = requests()
    assert usual < searching <= usual + 2 + 2 * len(ACCOUNT_METRICS).bit_length()
    assert "campaignsCost" in read_periods(Lake(str(tmp_path)), ACCOUNT_PERIODS).refused
    assert requests(REFUSAL_DAYS - 2) <= usual
    assert {row["campaigns_cost"] for row in stored_accounts(tmp_path).values() if row["period"] == "7d"} == {None}

    service.override = lambda request: None
    assert requests(REFUSAL_DAYS) <= usual
    assert not read_periods(Lake(str(tmp_path)), ACCOUNT_PERIODS).refused
    assert None not in {row["campaigns_cost"] for row in stored_accounts(tmp_path).values() if row["period"] == "7d"}


@pytest.mark.parametrize("service", [CURSOR], indirect=True, ids=str)
def test_what_was_paid_of_all_time_does_not_replace_results(service: Service, tmp_path: Path) -> None:
    fetch_accounts(service, tmp_path)
    before = stored_accounts(tmp_path)
    only_paid: Row = {metric.api_name: None for metric in ACCOUNT_METRICS} | {"campaignsCost": 7.5}

    def respond(request: Request) -> Response | None:
        return JSONResponse({"data": {"metrics": only_paid}}) if request.url.path == ACCOUNT_PATH else None

    service.override = respond
    assert fetch_accounts(service, tmp_path).failed
    after = stored_accounts(tmp_path)
    with_results = {key for key, row in before.items() if row["impressions"] is not None}
    assert len(with_results) > 10
    assert {key: after[key] for key in with_results} == {key: before[key] for key in with_results}
