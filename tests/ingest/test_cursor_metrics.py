"""Metrics of a sandbox that accepts each metric only for some content types: the lake has all available values."""

import asyncio
import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import Response

from later_reporting_dagster.client import QueryRejected
from later_reporting_dagster.contract import CURSOR, DEFAULT_METRICS, METRICS, DateBasis, Metric, parse_metrics
from later_reporting_dagster.ingest.metric_negotiation import find_accepted_metrics
from later_reporting_dagster.lake import Lake, posts_schema
from later_reporting_dagster.lake.tables import POSTS_TABLES, RawTable
from later_reporting_dagster.server.sandbox import World
from later_reporting_dagster.server.sandbox.metrics import PostMetrics
from later_reporting_dagster.server.sandbox.synthetic_world import NOT_AVAILABLE
from tests.conftest import DAYS, INSTANCE_IDS, Service, parameters, problem
from tests.ingest.conftest import DAILY, ONE_QUERY_SECONDS, PARTITIONS, PUBLISHED, client_of, recorded_waits, run_ingest

cursor_only = pytest.mark.parametrize("service", [CURSOR], indirect=True, ids=str)
Rows = dict[tuple[date, str, int, int], dict[str, float | None]]


def expected_rows(world: World, table: RawTable, metrics: tuple[Metric, ...]) -> Rows:
    """Return the values of all known metrics in a world by day and post key; None for those not in `metrics`."""
    posts, expected = world.posts, Rows()
    for day in DAYS:
        ordinal = day.toordinal()
        if table.date_basis is DateBasis.POST_DATE:
            rows, since, until = np.flatnonzero(posts.day == ordinal), 1, world.last_day.toordinal()
        else:
            rows = np.flatnonzero((posts.day <= ordinal) & (posts.day + posts.lifetime_days > ordinal))
            since = until = ordinal
        values = PostMetrics(world, rows, (since, until))
        for position, row in enumerate(rows.tolist()):
            key = (world.instance_ids[posts.instance[row]], int(posts.campaign_id[row]), int(posts.post_id[row]))
            expected[day, *key] = {
                metric.column: value / (1 if metric.kind.is_integer else 100)
                if metric in metrics and (value := int(values[metric.api_name][position])) != NOT_AVAILABLE
                else None
                for metric in METRICS
            }
    return expected


def ingested_rows(service: Service, root: Path, table: RawTable, metrics: tuple[Metric, ...]) -> Rows:
    """Ingest all partitions, each of which must be written; return their rows as `expected_rows` does."""
    service.api_version = None  # detected
    assert not run_ingest(PARTITIONS, table=table, service=service, root=root, metrics=metrics).failed
    lake = Lake(str(root))
    rows = Rows()
    for partition in PARTITIONS:
        for row in lake.read(table.name, [partition], schema=posts_schema(METRICS)).to_pylist():
            assert row["extra"] is None
            key = (row["instance_id"], row["campaign_id"], row["post_id"])
            rows[partition.day, *key] = {metric.column: row[metric.column] for metric in METRICS}
    return rows


@pytest.mark.parametrize(("table", "metrics"), [(DAILY, "all"), (PUBLISHED, "navigation_tap_exit, reach")])
@cursor_only
def test_the_lake_has_all_values_that_the_api_has(
    service: Service, small_world: World, table: RawTable, metrics: str, tmp_path: Path
) -> None:
    selected = parse_metrics(metrics)
    assert ingested_rows(service, tmp_path, table, selected) == expected_rows(small_world, table, selected)


def test_metrics_that_the_paged_version_lacks_are_null_and_cost_no_request(
    service: Service, small_world: World, tmp_path: Path
) -> None:
    for table in POSTS_TABLES:
        urls = []
        for metrics in (DEFAULT_METRICS, METRICS):
            rows = ingested_rows(service, tmp_path / str(len(metrics)), table, metrics)
            assert rows == expected_rows(small_world, table, DEFAULT_METRICS)
            urls.append(sorted(str(request.url) for request in service.requests))
            service.requests.clear()
        # In particular none to detect another API version, as there is after a rejection.
        assert urls[0] == urls[1]


@cursor_only
def test_rejected_metrics_are_searched_once_for_all_queries(service: Service, tmp_path: Path) -> None:
    searches = []
    for table in (PUBLISHED, DAILY):  # one query for all days, and one query per day
        ingested_rows(service, tmp_path, table, parse_metrics("reach, saves"))
        # A search asks for all instances.
        searches.append(sum("instanceIds" not in parameters(request) for request in service.requests))
        service.requests.clear()
    assert searches[0] == searches[1]


@cursor_only
def test_default_metrics_that_are_rejected_are_null(service: Service, small_world: World, tmp_path: Path) -> None:
    """The API reference does not say that the default metrics are valid without a filter."""

    def reject(request: Request) -> Response | None:
        names = ",".join(parameters(request).get("metrics", ())).split(",")
        return problem(400, "metrics: cpe is not supported") if "cpe" in names else None

    service.override = reject
    rows = ingested_rows(service, tmp_path, DAILY, DEFAULT_METRICS)
    assert rows == expected_rows(small_world, DAILY, tuple(each for each in DEFAULT_METRICS if each.column != "cpe"))


@cursor_only
def test_instance_that_fails_neither_fails_nor_repeats_the_search_for_metrics(service: Service, tmp_path: Path) -> None:
    def fail(request: Request) -> Response | None:
        requested = parameters(request)
        is_for_it = INSTANCE_IDS[2] in requested.get("instanceIds", INSTANCE_IDS)
        return problem(500) if is_for_it and "startDate" in requested else None

    service.override = fail
    waits, options = recorded_waits()
    client, metrics = client_of(service, **options), parse_metrics("reach")
    result = run_ingest(PARTITIONS, table=DAILY, service=service, root=tmp_path, metrics=metrics, client=client)
    assert result.failed.keys() == {each for each in PARTITIONS if each.instance_id == INSTANCE_IDS[2]}
    assert sum(waits) <= 2 * ONE_QUERY_SECONDS


def platforms_of(request: Request) -> list[str]:
    return parameters(request).get("platform", [])


@cursor_only
def test_posts_removed_between_the_queries_of_a_day_fail_it(service: Service, tmp_path: Path) -> None:
    def remove_post(request: Request, document: Any) -> Any:
        if platforms_of(request) == ["instagram"] and document["data"]:
            document["data"].pop()
        return document

    service.transform = remove_post
    failed = run_ingest(PARTITIONS, table=DAILY, service=service, root=tmp_path, metrics=parse_metrics("reach")).failed
    errors = {str(result.error) for result in failed.values()}
    assert errors
    assert all("posts were added or removed in between" in error for error in errors)


@cursor_only
def test_bad_row_in_a_query_for_some_metrics_leaves_them_null(service: Service, tmp_path: Path) -> None:
    def corrupt(request: Request, document: Any) -> Any:
        if platforms_of(request) == ["instagram"] and document["data"]:
            document["data"][0]["metrics"]["reach"] = -1
        return document

    lake = Lake(str(tmp_path))
    service.transform = corrupt
    metrics = parse_metrics("reach, impressions")
    assert not run_ingest(PARTITIONS, table=DAILY, service=service, root=tmp_path, metrics=metrics).failed
    quarantined = lake.quarantine.rows(DAILY.name)
    assert quarantined
    for row in quarantined:
        assert row.partition is not None
        posts = lake.read(DAILY.name, [row.partition], schema=posts_schema(METRICS)).to_pylist()
        (post,) = [post for post in posts if post["post_id"] == json.loads(row.raw)["postId"]]
        assert post["reach"] is None


@cursor_only
def test_unreadable_values_in_a_query_for_some_metrics_fail_the_partition(service: Service, tmp_path: Path) -> None:
    def with_units(request: Request, document: Any) -> Any:
        for row in document["data"] if platforms_of(request) else ():
            row["metrics"]["reach"] = f"{row['metrics']['reach']} k"
        return document

    service.transform = with_units
    metrics = parse_metrics("reach, impressions")
    result = run_ingest(PARTITIONS, table=DAILY, service=service, root=tmp_path, metrics=metrics)
    failed = {each for each, of_it in result.failed.items() if "values of reach cannot be read" in of_it.reason}
    assert (
        failed == {*result.failed} == {*PARTITIONS} - {each for each, it in result.written.items() if not it.file.rows}
    )


# Finding the metrics that the API accepts


def find(accepted: set[Metric]) -> tuple[tuple[Metric, ...], int]:
    """Return the metrics that were found to be accepted, and the number of requests."""
    requests: list[tuple[Metric, ...]] = []

    async def request(metrics: tuple[Metric, ...]) -> None:
        requests.append(metrics)
        if not accepted.issuperset(metrics):
            raise QueryRejected("some metrics are not supported")

    return asyncio.run(find_accepted_metrics(METRICS, request)), len(requests)


@given(accepted=st.sets(st.sampled_from(METRICS)))
def test_accepted_metrics_are_found_by_halves(accepted: set[Metric]) -> None:
    found, requests = find(accepted)
    assert found == tuple(metric for metric in METRICS if metric in accepted)
    assert requests <= 2 * len(METRICS)


def test_one_refused_metric_costs_few_requests() -> None:
    assert find({*METRICS[:7], *METRICS[8:]})[1] <= 13


@cursor_only
@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize(("metrics", "day"), [(DEFAULT_METRICS, DAYS[1]), (parse_metrics("reach, cpe"), DAYS[-1])])
def test_a_refused_day_is_not_taken_for_refused_metrics(
    metrics: tuple[Metric, ...], day: date, status: int, service: Service, tmp_path: Path
) -> None:
    def refuse(request: Request) -> Response | None:
        return problem(status) if parameters(request).get("startDate") == [str(day)] else None

    service.override = refuse
    result = run_ingest(PARTITIONS, table=DAILY, service=service, root=tmp_path, metrics=metrics)
    assert result.errors() == {each: QueryRejected for each in PARTITIONS if each.day == day}
    for metric in metrics:
        columns = [written.rows[metric.column] for written in result.written.values()]
        assert any(column.null_count < len(column) for column in columns)
