"""What Later totals for an account over whole periods: each instance, and all together."""

import asyncio
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from later_reporting_dagster.contract.metrics import ACCOUNT_METRICS
from later_reporting_dagster.ingest.periods import (
    PeriodsFile,
    ingest_periods,
    periods_to_fetch,
    queries_of,
    read_periods,
)
from later_reporting_dagster.ingest.progress import Progress, RouteRefused
from later_reporting_dagster.lake import Lake
from later_reporting_dagster.lake.tables import ACCOUNT_PERIODS
from tests.conftest import INSTANCE_IDS, Row, Service, both_api_versions, parameters, problem
from tests.ingest.conftest import DEFAULT_GUARD, client_of
from tests.server.lake_store.clients import days_query, get

PATH = "/v2/instances/performance"
START, NEWEST = date(2023, 10, 1), date(2024, 3, 9)
WINDOWS = {"7d": 7, "28d": 28}


def fetch(
    service: Service, root: Path, *, instances: tuple[str, ...] = INSTANCE_IDS, newest: date = NEWEST
) -> PeriodsFile:
    """Fetch what a run on the day after `newest` fetches."""
    lake = Lake(str(root))
    stored = read_periods(lake, ACCOUNT_PERIODS)
    periods = periods_to_fetch(stored, start_date=START, newest=newest, ages=[28], instances=instances)
    file = PeriodsFile(periods=ACCOUNT_PERIODS, lake=lake, stored=stored, metrics=ACCOUNT_METRICS, listed=instances)

    async def run() -> None:
        async with client_of(service) as client:
            asked = queries_of(ACCOUNT_PERIODS, periods, configured=(), instances=instances)
            progress = Progress(ACCOUNT_PERIODS.name)
            await ingest_periods(asked, file, client=client, guard=DEFAULT_GUARD, progress=progress)

    asyncio.run(run())
    return file


def stored(root: Path) -> dict[tuple[str, date, str], Row]:
    rows: list[Row] = pq.ParquetFile(root / ACCOUNT_PERIODS.name / "part-0.parquet").read().to_pylist()
    found = {(row["period"], row["first_day"], row["instance_id"]): row for row in rows}
    assert len(found) == len(rows)
    return found


@both_api_versions
def test_each_row_is_the_answer_for_its_instances_and_days(service: Service, tmp_path: Path, api: httpx.Client) -> None:
    assert not fetch(service, tmp_path).failed
    rows = stored(tmp_path)
    for name, days in WINDOWS.items():
        first = NEWEST - timedelta(days=days - 1)
        for instance_id in (*INSTANCE_IDS, ""):
            row = rows[name, first, instance_id]
            ids = [("instanceIds[]", each) for each in ([instance_id] if instance_id else INSTANCE_IDS)]
            query = days_query(first, NEWEST, ("dateBasis", "performance_date"), *ids)
            answer = get(api, query, PATH).json()["data"]
            assert {metric.column: row[metric.column] for metric in ACCOUNT_METRICS} == {
                metric.column: answer[metric.api_name] for metric in ACCOUNT_METRICS
            }
            assert (row["scope"], row["last_day"], row["extra"]) == ("instance" if instance_id else "all", NEWEST, None)
            assert row["date_basis"] == "performance_date"
    # Two windows and three months of each instance; of all, five windows, four before them, and six months.
    assert service.request_count(PATH) == len(INSTANCE_IDS) * 5 + 15


def test_a_second_run_asks_for_no_older_month_again(service: Service, tmp_path: Path) -> None:
    fetch(service, tmp_path)
    service.requests.clear()
    fetch(service, tmp_path, newest=NEWEST + timedelta(days=1))
    assert service.request_count(PATH) == len(INSTANCE_IDS) * 5 + 12
    windows = [key for key in stored(tmp_path) if key[0] == "7d"]
    assert {first for _, first, _ in windows} == {NEWEST - timedelta(days=5)}
    assert len(windows) == len(INSTANCE_IDS) + 1


def test_reach_of_all_is_left_out_if_their_ids_do_not_fit_one_url() -> None:
    periods = periods_to_fetch(
        read_periods(Lake("/nowhere"), ACCOUNT_PERIODS), start_date=START, newest=NEWEST, ages=[28]
    )
    for instances, together in ((("a",), 0), (("a", "b"), 15), ([f"{number:050}" for number in range(200)], 0)):
        asked = queries_of(ACCOUNT_PERIODS, periods, configured=(), instances=instances)
        assert sum(not period.subject for period in asked) == together
        assert sum(bool(period.subject) for period in asked) == 5 * len(instances)


def test_a_failed_instance_keeps_its_rows(service: Service, tmp_path: Path) -> None:
    fetch(service, tmp_path)
    before = stored(tmp_path)
    failing = INSTANCE_IDS[0]

    def fail(request: Request) -> Response | None:
        is_it = parameters(request).get("instanceIds", parameters(request).get("instanceIds[]")) == [failing]
        return problem(503) if request.url.path == PATH and is_it else None

    service.override = fail
    failed = fetch(service, tmp_path).failed
    assert len(failed) == 5
    assert all(name.endswith(f" of {failing}") for name in failed)
    assert stored(tmp_path) == before


@pytest.mark.parametrize("status", [403, 404])
def test_an_account_without_the_route_is_told_once(service: Service, tmp_path: Path, status: int) -> None:
    service.override = lambda request: problem(status) if request.url.path == PATH else None
    with pytest.raises(RouteRefused):
        fetch(service, tmp_path)
    assert service.request_count(PATH) == 2
    assert not (tmp_path / ACCOUNT_PERIODS.name).exists()


def test_no_answer_empties_no_row(service: Service, tmp_path: Path) -> None:
    fetch(service, tmp_path)
    before = stored(tmp_path)
    body: dict[str, Any] = {"data": None}
    service.override = lambda request: JSONResponse(body) if request.url.path == PATH else None
    assert fetch(service, tmp_path).failed
    assert stored(tmp_path) == before


def test_an_instance_out_of_reach_is_never_asked_for_as_all(service: Service, tmp_path: Path) -> None:
    def forbid(request: Request) -> Response | None:
        asked = parameters(request).get("instanceIds[]", parameters(request).get("instanceIds", []))
        return problem(403) if request.url.path == PATH and "gone" in asked else None

    service.override = forbid
    failed = fetch(service, tmp_path, instances=(*INSTANCE_IDS, "gone")).failed
    assert len(failed) == 5
    assert all(name.endswith(" of gone") for name in failed)
    together = [key for key, row in stored(tmp_path).items() if row["scope"] == "all"]
    assert len(together) == len({(name, first) for name, first, _ in together}) > 0
    asked = [parameters(request) for request in service.requests if request.url.path == PATH]
    assert all("instanceIds" in query or "instanceIds[]" in query for query in asked)
