"""Violations of invariants in a raw table are counted by row; missing values are no violation."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.contract import DateBasis
from later_reporting_dagster.lake import Partition
from later_reporting_dagster.quality.data_quality import (
    count_inconsistent_rates,
    count_rows_outside_partition,
    count_unknown_fields,
)
from tests.rollups.conftest import posts_of, row

PARTITION = Partition(date(2024, 3, 2), "a")


def posts(*rows: dict[str, Any]) -> pa.Table:
    """Return posts of partition `PARTITION`, without fields that are not given."""
    blank = {"platform": None, "content_type": None, "post_date": datetime(2024, 3, 2, 12, tzinfo=UTC)}
    return posts_of(*(row(post_id=number, **{**blank, **fields}) for number, fields in enumerate(rows)))


@pytest.mark.parametrize(("date_basis", "outside"), [(DateBasis.POST_DATE, 3), (DateBasis.PERFORMANCE_DATE, 1)])
def test_count_rows_outside_partition_counts_other_instances_and_days(date_basis: DateBasis, outside: int) -> None:
    first, moment = datetime(2024, 3, 2, tzinfo=UTC), timedelta(microseconds=1)
    last = first + timedelta(days=1) - moment
    # Posts with results on a day may have any date.
    times = ({"post_date": time} for time in (first, last, first - moment, last + moment))
    table = posts({"instance_id": "b"}, *times)
    assert count_rows_outside_partition([(PARTITION, table)], date_basis=date_basis) == outside


@given(
    engagements=st.integers(0, 10**9),
    impressions=st.integers(0, 10**9),
    cost=st.integers(0, 10**9),
    prefix=st.sampled_from(["", "paid_"]),
)
def test_count_inconsistent_rates_accepts_rates_rounded_to_two_decimals(
    engagements: int, impressions: int, cost: int, prefix: str
) -> None:
    # `cost` is in cents. The API returns null for a rate with a zero denominator.
    row = {
        "engagements": engagements,
        "impressions": impressions,
        "engagement_rate": round(100 * engagements / impressions, 2) if impressions else None,
        "cpe": round(cost / 100 / engagements, 2) if engagements else None,
        "cpm": round(cost / 100 / impressions * 1000, 2) if impressions else None,
    }
    assert count_inconsistent_rates(posts({f"{prefix}{name}": value for name, value in row.items()})) == 0


SAMPLE = {"engagements": 1240, "impressions": 8500, "engagement_rate": 14.59, "cpe": 0.24, "cpm": 35.29}


@pytest.mark.parametrize("prefix", ["", "paid_"])
@pytest.mark.parametrize(
    ("change", "inconsistent"),
    [
        ({}, 0),
        ({"engagement_rate": 14.58}, 1),
        ({"engagement_rate": 14.60}, 1),
        ({"engagements": 0, "impressions": 0, "engagement_rate": 0.0, "cpe": 9.0, "cpm": 9.0}, 0),
        ({"cpe": 0.26}, 1),
        ({"cpm": 37.0}, 1),
        ({"cpe": None, "cpm": 999.0}, 0),
        ({"cpe": 999.0, "cpm": None}, 0),
        ({"engagements": 2**53 + 1, "impressions": 2**53 + 1, "engagement_rate": 100.0, "cpe": None}, 0),
    ],
)
def test_count_inconsistent_rates_counts_a_rate_that_contradicts_its_counts(
    prefix: str, change: dict[str, Any], inconsistent: int
) -> None:
    row = {f"{prefix}{name}": value for name, value in {**SAMPLE, **change}.items()}
    good = {f"{prefix}{name}": value for name, value in SAMPLE.items()}
    assert count_inconsistent_rates(posts(row, good, {})) == inconsistent


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([], {}),
        ([{"content_type": "instagram_reel", "platform": "instagram"}, {}], {}),
        ([{"extra": '{"boosts":1,"labels":null}'}, {"extra": '{"boosts":2}'}, {}], {"boosts": 2, "labels": 1}),
        ([{"extra": '{"shares":1,"saves":null}'}], {}),  # metrics that were not requested
        ([{"extra": '{"creatorProfile":{"verified":true}}'}], {"creatorProfile.verified": 1}),
        ([{"extra": '{"audience":{"age":30},"creatorProfile":5}'}], {"audience": 1, "creatorProfile": 1}),
        (
            [{"content_type": "billboard"}, {}, {"platform": "tiktok", "content_type": "tiktok"}],
            {"contentType=billboard": 1},
        ),
        ([{"content_type": ""}], {"contentType=": 1}),
    ],
)
def test_count_unknown_fields_counts_fields_and_content_types(
    rows: list[dict[str, Any]], found: dict[str, int]
) -> None:
    assert count_unknown_fields(posts(*rows)) == found
