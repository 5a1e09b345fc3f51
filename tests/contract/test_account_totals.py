"""Totals of accounts are read in every form that is not excluded, and refused if a day could be lost or falsified."""

import json
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from later_reporting_dagster.contract import CURSOR, PAGED, PerformanceQuery
from later_reporting_dagster.contract.metrics import ACCOUNT_METRICS, OVER_TIME_METRICS
from later_reporting_dagster.contract.page import ListResult, UnreadableBody
from later_reporting_dagster.contract.parameters import DateBasis
from later_reporting_dagster.contract.route import INSTANCES_PERFORMANCE, PERFORMANCE_OVER_TIME

FIRST, LAST = date(2024, 7, 1), date(2024, 7, 3)
BUCKET = {"startDate": "2024-07-01", "endDate": "2024-07-01", "impressions": 8, "reach": 5, "engagementRate": 12.5}


def query(*instance_ids: str) -> PerformanceQuery:
    return PerformanceQuery(
        start_date=FIRST,
        end_date=LAST,
        instance_ids=instance_ids,
        date_basis=DateBasis.PERFORMANCE_DATE,
        metrics=OVER_TIME_METRICS,
    )


def read(rows: list[Any], *, personal_data: bool = True) -> ListResult:
    pagination = {"page": 1, "pageSize": 100, "totalItems": len(rows), "totalPages": 1}
    body = json.dumps({"data": rows, "pagination": pagination}).encode()
    return PERFORMANCE_OVER_TIME.parse_page(body, query("a"), PAGED, personal_data=personal_data)


def problem_of_days(page: ListResult) -> str | None:
    return PERFORMANCE_OVER_TIME.find_problem(query("a"), page)


def totals(data: Any, *instance_ids: str, version: Any = PAGED) -> ListResult:
    wanted = replace(query(*instance_ids or "a"), metrics=ACCOUNT_METRICS)
    return INSTANCES_PERFORMANCE.parse_page(json.dumps({"data": data}).encode(), wanted, version)


def problem_of_totals(page: ListResult, *instance_ids: str) -> str | None:
    return INSTANCES_PERFORMANCE.find_problem(query(*instance_ids), page)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2024-07-02", "2024-07-02"),
        ("2024-07-02T00:00:00.000Z", "2024-07-02T23:59:59.999Z"),
        ("2024-07-02T00:00:00", "2024-07-02T00:00:00"),
        ("2024-07-02 00:00:00+00:00", "2024-07-02"),
        ("2024-07-01T23:00:00-05:00", "2024-07-02T12:00:00-05:00"),
    ],
)
def test_days_are_read_in_any_format(start: str, end: str) -> None:
    page = read([BUCKET | {"startDate": start, "endDate": end}])
    (bucket,) = page.items
    assert (bucket.day, bucket.key) == (date(2024, 7, 2), ("a", date(2024, 7, 2)))
    assert (bucket.instance_id, bucket.impressions, bucket.reach, bucket.clicks) == ("a", 8, 5, None)
    assert (problem_of_days(page), page.oddities) == (None, {})


def test_values_that_cannot_be_read_are_null_and_kept_like_unknown_fields() -> None:
    page = read([BUCKET | {"reach": "many", "impressions": "8", "campaignsCost": 3.5}])
    (bucket,) = page.items
    assert (bucket.reach, bucket.impressions) == (None, 8)
    assert json.loads(bucket.extra) == {"campaignsCost": 3.5, "reach": "many"}
    assert page.unreadable == {bucket.key: {"reach": '"many"'}}
    hidden = read([BUCKET | {"owner": "Jane"}], personal_data=False)
    assert (hidden.items[0].impressions, hidden.items[0].extra) == (8, None)


def test_value_that_cannot_be_true_is_a_bad_row_of_its_day() -> None:
    page = read([BUCKET | {"reach": -1}, BUCKET | {"startDate": "2024-07-02", "endDate": "2024-07-02"}])
    (row,) = page.bad_rows
    assert (row.instance_id, row.first_day, row.last_day) == ("a", FIRST, FIRST)
    assert (len(page.items), problem_of_days(page)) == (1, None)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"startDate": "2024-07-02"}, "the bucket 2024-07-02 to 2024-07-01 is no single day from 2024-07-01 to"),
        ({"endDate": "2024-07-31"}, "the bucket 2024-07-01 to 2024-07-31 is no single day from 2024-07-01 to"),
        ({"startDate": "2024-06-30", "endDate": "2024-06-30"}, "the bucket 2024-06-30 to 2024-06-30 is no single day"),
        ({"startDate": "2024-07-04", "endDate": "2024-07-04"}, "the bucket 2024-07-04 to 2024-07-04 is no single day"),
        ({"endDate": "2024-07-31", "reach": -1}, "the bucket 2024-07-01 to 2024-07-31 is no single day"),
        (
            {"startDate": "2024-07-02T00:00:00-05:00", "endDate": "2024-07-02T23:59:59-05:00"},
            "the bucket 2024-07-02 to 2024-07-03 is no single day",
        ),
        ({"startDate": "July 2"}, "a bucket whose days cannot be read: startDate must be an ISO 8601 time"),
        ({"endDate": None}, "a bucket whose days cannot be read: endDate is missing"),
        ({"impressions": 9}, "the bucket 2024-07-01 to 2024-07-01 came twice"),
        ({"startDate": "2024-07-02", "endDate": "2024-07-02", "instanceId": "b"}, "a row of an instance that was not"),
    ],
)
def test_bucket_that_is_no_other_day_of_the_query_is_refused(changes: dict[str, Any], problem: str) -> None:
    assert str(problem_of_days(read([BUCKET, BUCKET | changes]))).startswith(problem)


@pytest.mark.parametrize("in_list", [False, True])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("version", [PAGED, CURSOR], ids=str)
def test_object_of_totals_is_read_in_every_shape(version: Any, nested: bool, in_list: bool) -> None:
    values = {"impressions": 8, "returnOnInvestment": 1.5, "campaignsCost": 7.5}
    data: Any = {"metrics": values} if nested else values
    page = totals([data] if in_list else data, "a", "b", version=version)
    (row,) = page.items
    assert (row.instance_id, row.impressions, row.return_on_investment, row.reach) == ("", 8, 1.5, None)
    assert row.campaigns_cost == 7.5
    assert not page.is_surely_empty
    assert {*page.oddities} <= {"metrics at the other place"}
    assert problem_of_totals(page, "a", "b") is None


def test_totals_of_several_rows_or_of_another_instance_are_refused() -> None:
    for data in ([{"reach": 1}, {"reach": 2}], [], "none"):
        with pytest.raises(UnreadableBody, match="not a page of totals"):
            totals(data)
    row = {"instanceId": "a"}
    assert "not requested alone: 'a'" in str(problem_of_totals(totals(row, "a", "b"), "a", "b"))
    assert problem_of_totals(totals(row), "a") is None


def test_response_without_totals_has_no_row_and_is_unsure() -> None:
    page = totals(None)
    assert (page.items, page.is_unsure) == ([], True)
