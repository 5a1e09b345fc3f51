"""The slice writer: quarantine of bad rows, limits, diffs, and a lake that fails. Tests use real HTTP."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from later_reporting_dagster.client import QueryRejected
from later_reporting_dagster.ingest.decide import Reason, WriteLimits
from later_reporting_dagster.ingest.ingest import MAX_CONFIRMATIONS
from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.lake.tables import RawTable
from later_reporting_dagster.server.sandbox import World, create_app
from tests.conftest import (
    DAYS,
    FIRST_DAY,
    INSTANCE_IDS,
    NO_RATE_LIMIT,
    Row,
    Service,
    Truth,
    both_api_versions,
    files,
    metrics_of,
    parameters,
    partition_file,
    problem,
    stored_rows,
)
from tests.ingest.conftest import (
    DAILY,
    PARTITIONS,
    PUBLISHED,
    assert_lake_matches,
    each_raw_table,
    insert_unassigned_row,
    run_ingest,
    with_impressions,
)

# Bad rows


@both_api_versions
@each_raw_table
def test_a_bad_row_is_quarantined_until_the_api_returns_it_valid(
    table: RawTable, service: Service, truth: Truth, tmp_path: Path
) -> None:
    day, instance_id = DAYS[1], INSTANCE_IDS[3]
    partition = Partition(day, instance_id)
    bad = next(row for row in truth.day(table.date_basis.value, day) if row["instanceId"] == instance_id)
    key = {name: bad[name] for name in ("instanceId", "campaignId", "postId")}

    def is_bad(request: Request, row: Row) -> bool:
        is_of_day = table is PUBLISHED or parameters(request)["startDate"] == [str(day)]
        return is_of_day and key.items() <= row.items()

    service.transform = with_impressions(10**12, is_bad)
    lake = Lake(str(tmp_path))
    result = run_ingest(PARTITIONS, table=table, service=service, root=tmp_path)
    assert not result.failed
    assert {each: written.bad_rows for each, written in result.written.items() if written.bad_rows} == {partition: 1}
    (quarantined,) = lake.quarantine.rows(table.name)
    assert quarantined.partition == partition
    assert "startDate=2024-" in quarantined.query
    assert "impressions" in quarantined.reason
    raw = json.loads(quarantined.raw)
    assert raw | raw.pop("metrics", {}) == {**bad, "impressions": 10**12}
    expected = truth.partition(table.date_basis.value, day, instance_id)
    others = [row for row in expected if (row["campaign_id"], row["post_id"]) != (bad["campaignId"], bad["postId"])]
    assert stored_rows(tmp_path, table.name, day, instance_id) == others

    service.transform = None
    run_ingest(PARTITIONS, table=table, service=service, root=tmp_path)
    assert lake.quarantine.rows(table.name) == []
    assert_lake_matches(tmp_path, table, PARTITIONS, truth)


@each_raw_table
def test_unassigned_rows_stay_until_their_query_is_fetched_again(
    table: RawTable, service: Service, tmp_path: Path
) -> None:
    lake = Lake(str(tmp_path))
    service.transform = insert_unassigned_row
    for _ in range(2):
        run_ingest(PARTITIONS, table=table, service=service, root=tmp_path)
    quarantined = lake.quarantine.rows(table.name)
    queries = 1 if table is PUBLISHED else len(DAYS)
    assert [json.loads(row.raw) for row in quarantined] == [{"surprise": True}] * queries
    service.transform = None
    others = [each for each in PARTITIONS if each.instance_id != INSTANCE_IDS[0]]
    run_ingest(others, table=table, service=service, root=tmp_path)
    assert lake.quarantine.rows(table.name) == quarantined
    run_ingest(PARTITIONS, table=table, service=service, root=tmp_path)
    assert lake.quarantine.rows(table.name) == []


def test_a_partition_with_too_many_bad_rows_is_quarantined_and_not_replaced(
    service: Service, truth: Truth, tmp_path: Path
) -> None:
    bad = Partition(FIRST_DAY, INSTANCE_IDS[0])
    count = len(truth.partition("performance_date", FIRST_DAY, INSTANCE_IDS[0]))

    def is_bad(request: Request, row: Row) -> bool:
        return row["instanceId"] == INSTANCE_IDS[0] and parameters(request)["startDate"] == [str(FIRST_DAY)]

    run_ingest(PARTITIONS, table=DAILY, service=service, root=tmp_path)
    before = files(tmp_path)
    service.transform = with_impressions(10**12, is_bad)
    limits = WriteLimits(max_bad_rows_percent=99)
    result = run_ingest(PARTITIONS, table=DAILY, service=service, root=tmp_path, limits=limits)
    assert result.errors() == {bad: Reason.BAD_ROWS}
    assert f"{count} of {count} rows of this partition are bad" in result.failed[bad].reason
    assert files(tmp_path).items() >= before.items()
    assert {row.partition for row in Lake(str(tmp_path)).quarantine.rows(DAILY.name)} == {bad}


@pytest.mark.parametrize(("limit", "fails"), [(0, True), (1, False)])
def test_too_many_unassigned_rows_fail_their_query(limit: int, fails: bool, service: Service, tmp_path: Path) -> None:
    service.transform = insert_unassigned_row
    limits = WriteLimits(max_bad_rows_percent=limit)
    result = run_ingest(PARTITIONS, table=PUBLISHED, service=service, root=tmp_path, limits=limits)
    assert result.errors() == (dict.fromkeys(PARTITIONS, Reason.BAD_ROWS) if fails else {})
    for failed in result.failed.values():
        assert "rows of the query are bad and name no partition" in failed.reason
    assert len(Lake(str(tmp_path)).quarantine.rows(PUBLISHED.name)) == 1


# Responses that remove posts or values


def test_a_response_that_shrinks_a_partition_replaces_nothing_until_it_is_accepted(
    service: Service, small_world: World, truth: Truth, tmp_path: Path
) -> None:
    counts = {each: len(truth.partition("performance_date", each.day, each.instance_id or "")) for each in PARTITIONS}
    judged = {each for each, count in counts.items() if count >= 20}
    assert judged
    run_ingest(PARTITIONS, table=DAILY, service=service, root=tmp_path)
    before = files(tmp_path)
    empty = World(first_day=small_world.first_day, last_day=small_world.last_day, instances=1, posts_per_day=0,
                  extra_instance_ids=INSTANCE_IDS[1:])  # fmt: skip
    service.app = create_app(empty, options=NO_RATE_LIMIT)
    result = run_ingest(judged, table=DAILY, service=service, root=tmp_path)
    assert result.errors() == dict.fromkeys(judged, Reason.ROW_LOSS)
    for partition, failed in result.failed.items():
        assert failed.reason.startswith(
            f"{counts[partition]} posts are stored, and the response has 0 of them: nothing"
        )
    assert files(tmp_path) == before

    accepted = run_ingest(
        judged, table=DAILY, service=service, root=tmp_path, limits=WriteLimits(max_row_loss_percent=100)
    )
    assert all(written.file.rows == 0 for written in accepted.written.values())
    for partition, written in accepted.written.items():
        assert written.diff is not None
        assert (written.diff.removed, written.diff.rows_after) == (counts[partition], 0)
    again = run_ingest(judged, table=DAILY, service=service, root=tmp_path)
    assert {written.diff for written in again.written.values()} == {None}


# Lake errors


@each_raw_table
def test_a_partition_that_cannot_be_written_fails_alone(
    table: RawTable, service: Service, truth: Truth, tmp_path: Path
) -> None:
    blocked = Partition(DAYS[2], INSTANCE_IDS[0])
    directory = partition_file(tmp_path, table.name, blocked.day, INSTANCE_IDS[0]).parent
    directory.parent.mkdir(parents=True)
    directory.write_bytes(b"a file in place of a directory")
    result = run_ingest(PARTITIONS, table=table, service=service, root=tmp_path)
    assert result.errors() == {blocked: Reason.LAKE}
    assert str(directory) in result.failed[blocked].reason
    assert_lake_matches(tmp_path, table, list(result.written), truth)


def test_quarantine_that_cannot_be_written_fails_its_query(service: Service, tmp_path: Path) -> None:
    (tmp_path / "_quarantine").write_bytes(b"a file in place of a directory")
    service.transform = insert_unassigned_row
    result = run_ingest(PARTITIONS, table=PUBLISHED, service=service, root=tmp_path)
    assert result.errors() == dict.fromkeys(PARTITIONS, Reason.LAKE)


def test_bad_row_that_cannot_be_quarantined_fails_only_its_partition(
    service: Service, truth: Truth, tmp_path: Path
) -> None:
    def corrupt(request: Request, document: Any) -> Any:
        if parameters(request)["startDate"] == [str(DAYS[1])]:
            metrics_of(document["data"][0])["impressions"] = 10**12
            corrupted.add(Partition(DAYS[1], document["data"][0]["instanceId"]))
        return document

    corrupted: set[Partition] = set()
    (tmp_path / "_quarantine").write_bytes(b"a file in place of a directory")
    service.transform = corrupt
    result = run_ingest(PARTITIONS, table=DAILY, service=service, root=tmp_path)
    assert result.errors() == dict.fromkeys(corrupted, Reason.LAKE)
    assert_lake_matches(tmp_path, DAILY, list(result.written), truth)


# Responses without rows

PAIRS = [Partition(day, name) for day in DAYS[:2] for name in INSTANCE_IDS[:2]]
EMPTIED = PAIRS[2]
NO_TOTAL: dict[str, Any] = {"data": None, "pagination": None}


def few_posts(
    *without: Partition, left: int = 0, second: dict[str, Any] | None = None
) -> Callable[[Request], Response | None]:
    """Return a response override with three posts of each instance on each day, but for some.

    `left`: how many posts these have. `second`: the response to a query for one of these alone.
    """

    def respond(request: Request) -> Response | None:
        if request.url.path != "/v2/posts/performance":
            return None
        requested = parameters(request)
        day, names = date.fromisoformat(requested["startDate"][0]), requested["instanceIds"]
        rows = [
            {"instanceId": name, "campaignId": 1, "postId": number, "postDate": f"{day}T08:00:00Z", "engagements": 5}
            for name in names
            for number in range(left if Partition(day, name) in without else 3)
        ]
        if second is not None and not rows and len(names) == 1:
            return JSONResponse(second)
        pagination = {"page": 1, "pageSize": 100, "totalItems": len(rows), "totalPages": 1}
        return JSONResponse({"data": rows, "pagination": pagination})

    return respond


def test_stored_rows_are_replaced_by_none_if_a_second_response_agrees(service: Service, tmp_path: Path) -> None:
    service.override = few_posts()
    run_ingest(PAIRS, table=DAILY, service=service, root=tmp_path)
    service.override = few_posts(EMPTIED, second=NO_TOTAL)
    unsure = run_ingest(PAIRS, table=DAILY, service=service, root=tmp_path)
    assert unsure.errors() == {EMPTIED: Reason.WOULD_EMPTY}
    service.override, requests = few_posts(EMPTIED), service.data_requests
    sure = run_ingest(PAIRS, table=DAILY, service=service, root=tmp_path)
    assert (sure.failed, sure.written[EMPTIED].file.rows) == ({}, 0)
    assert service.data_requests - requests == 2 + 1


def test_most_of_few_rows_are_removed_if_a_second_response_agrees(service: Service, tmp_path: Path) -> None:
    service.override = few_posts()
    run_ingest(PAIRS, table=DAILY, service=service, root=tmp_path)
    few = few_posts(EMPTIED, left=1)
    alone = [{"instanceIds": [EMPTIED.instance_id], "startDate": [str(EMPTIED.day)]}]

    def fault(request: Request) -> Response | None:
        """Lack posts, but not in a query for the instance alone."""
        requested = parameters(request)
        return few_posts()(request) if any(each.items() <= requested.items() for each in alone) else few(request)

    service.override = fault
    mended = run_ingest(PAIRS, table=DAILY, service=service, root=tmp_path)
    assert (mended.failed, mended.written[EMPTIED].file.rows) == ({}, 3)
    service.override, requests = few, service.data_requests
    sure = run_ingest(PAIRS, table=DAILY, service=service, root=tmp_path)
    assert (sure.failed, sure.written[EMPTIED].file.rows) == ({}, 1)
    assert service.data_requests - requests == 2 + 1


def test_a_fault_that_takes_rows_from_many_small_files_costs_few_requests(service: Service, tmp_path: Path) -> None:
    days = [DAYS[0] + timedelta(days=number) for number in range(30)]
    pairs = [Partition(day, name) for day in days for name in INSTANCE_IDS[:2]]
    service.override, before = few_posts(), service.data_requests
    run_ingest(pairs, table=DAILY, service=service, root=tmp_path)
    usual = service.data_requests - before
    service.override, before = few_posts(*pairs, left=1), service.data_requests
    result = run_ingest(pairs, table=DAILY, service=service, root=tmp_path)
    assert service.data_requests - before == usual + MAX_CONFIRMATIONS
    assert (len(result.written), len(result.failed)) == (MAX_CONFIRMATIONS, len(pairs) - MAX_CONFIRMATIONS)
    for failure in result.failed.values():
        assert "3 posts are stored, and the response has 1 of them" in str(failure)
        assert "fetch it once more" in str(failure)


@pytest.mark.parametrize("reason", ["all rows of the instance", "not listed"])
def test_stored_rows_stay_without_a_second_request_if_the_instance_looks_gone(
    reason: str, service: Service, small_world: World, tmp_path: Path
) -> None:
    service.override = few_posts()
    run_ingest(PAIRS, table=DAILY, service=service, root=tmp_path)
    before = {path: content for path, content in files(tmp_path).items() if path.startswith(DAILY.name)}
    gone = [each for each in PAIRS if each.instance_id == EMPTIED.instance_id]
    if reason == "not listed":
        gone = [EMPTIED]
        scope = INSTANCE_IDS[1:]
        service.app = create_app(small_world, options=replace(NO_RATE_LIMIT, instance_scope=scope))
    service.override, requests = few_posts(*gone), service.data_requests
    result = run_ingest(PAIRS, table=DAILY, service=service, root=tmp_path)
    assert result.errors() == dict.fromkeys(gone, Reason.WOULD_EMPTY)
    assert service.data_requests - requests == 2
    assert files(tmp_path).items() >= before.items()
    limits = WriteLimits(max_row_loss_percent=100)
    accepted = run_ingest(PAIRS, table=DAILY, service=service, root=tmp_path, limits=limits)
    assert {each for each, written in accepted.written.items() if not written.file.rows} == {*gone}


def test_stored_rows_stay_if_the_api_stops_listing_their_instance_during_the_run(
    service: Service, small_world: World, tmp_path: Path
) -> None:
    """Its rows are in doubt, and a query without it would ask for all instances."""
    pairs = [*PAIRS, Partition(DAYS[2], INSTANCE_IDS[0])]  # rows of the last stay
    service.override = few_posts()
    run_ingest(pairs, table=DAILY, service=service, root=tmp_path)
    before, name = files(tmp_path), INSTANCE_IDS[0]
    service.app = create_app(small_world, options=replace(NO_RATE_LIMIT, instance_scope=INSTANCE_IDS[1:]))
    posts = few_posts(EMPTIED)

    def forbid(request: Request) -> Response | None:
        requested = parameters(request)
        is_forbidden = requested.get("startDate") == [str(DAYS[0])] and name in requested.get("instanceIds", [])
        return problem(403) if is_forbidden else posts(request) if "instanceIds" in requested else None

    service.override = forbid
    result = run_ingest(pairs, table=DAILY, service=service, root=tmp_path)
    assert result.errors() == {EMPTIED: Reason.WOULD_EMPTY, Partition(DAYS[0], name): QueryRejected}
    assert files(tmp_path).items() >= {path: it for path, it in before.items() if path.startswith(DAILY.name)}.items()
