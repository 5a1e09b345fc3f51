"""How a response differs from the stored partition, and how much of it a response may remove or have as bad rows."""

from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.contract import METRICS, parse_metrics
from later_reporting_dagster.contract.rows import post_type
from later_reporting_dagster.ingest.write_guard import (
    PartitionDiff,
    ShrankTooMuch,
    TooManyBadRows,
    WriteGuard,
    diff_partitions,
)
from later_reporting_dagster.lake import posts_table
from tests.lake.conftest import post

IDENTITY: dict[str, Any] = {
    "instance_id": "instance_000",
    "campaign_id": 7,
    "post_date": datetime(2024, 1, 3, tzinfo=UTC),
}


def posts(*given: dict[str, Any]) -> pa.Table:
    return posts_table([post(**fields) for fields in given])


def test_diff_ignores_unknown_fields() -> None:
    before, after = ({"post_id": 1, "extra": extra} for extra in ('{"likes":5}', None))
    assert diff_partitions(posts(before), posts(after)).restated == 0


def test_diff_counts_values_after_of_metrics_that_had_values() -> None:
    old = posts({"post_id": 1, "impressions": 3, "cpm": 1.0}, {"post_id": 2, "impressions": 4})
    new = posts({"post_id": 1, "paid_impressions": 3}, {"post_id": 2, "cpm": 0.0})
    found = diff_partitions(old, new)
    assert (found.values_before, found.values_after) == (3, 1)


def test_diff_ignores_a_metric_that_only_one_side_has() -> None:
    old = posts({"post_id": 1, "impressions": 3, "cpm": 1.0}, {"post_id": 2, "impressions": 4})
    new = posts_table(
        [post_type(METRICS)(**(IDENTITY | {"post_id": each, "impressions": 5, "likes": 6})) for each in (1, 3)],
        metrics=parse_metrics("impressions, likes"),
    )
    forward, backward = diff_partitions(old, new), diff_partitions(new, old)
    assert (forward.added, forward.removed, forward.restated) == (1, 1, 1)
    assert (forward.values_before, forward.values_after) == (2, 2)
    assert (backward.values_before, backward.values_after) == (2, 2)
    assert diff_partitions(old, old.drop_columns(["cpm"])).restated == 0


FIELDS = st.fixed_dictionaries(
    {
        "impressions": st.none() | st.integers(0, 2**63 - 1),
        "cpm": st.sampled_from([None, 0.0, 1.5]),
        "content_type": st.sampled_from(["instagram_post", "instagram_reel", None]),
    }
)
POSTS = st.dictionaries(st.integers(0, 9), FIELDS)


@given(POSTS, POSTS)
def test_diff_equals_the_diff_of_dictionaries(
    before: dict[int, dict[str, Any]], after: dict[int, dict[str, Any]]
) -> None:
    old, new = (posts(*({"post_id": key, **fields} for key, fields in rows.items())) for rows in (before, after))
    found = diff_partitions(old, new)
    assert found.added == len(after.keys() - before.keys())
    assert found.removed == len(before.keys() - after.keys())
    assert found.restated == sum(before[key] != after[key] for key in before.keys() & after.keys())


@pytest.mark.parametrize(
    ("limit", "rows", "values", "rejected"),  # of rows: stored, and stored ones that are left
    [
        (50, (500, 249), (0, 0), True),
        (50, (500, 250), (0, 0), False),
        (50, (20, 10), (0, 0), False),
        (50, (20, 9), (0, 0), True),
        (50, (19, 0), (0, 0), False),
        (0, (20, 19), (0, 0), True),
        (0, (20, 20), (0, 0), False),
        (100, (500, 0), (0, 0), False),
        # Rows that lose all values of their metrics.
        (50, (5, 5), (20, 0), True),
        (50, (5, 5), (20, 1), False),
        (50, (5, 5), (19, 0), False),
        (50, (5, 0), (20, 0), False),  # all rows are removed, and too few of them to judge
        (0, (5, 5), (20, 0), True),
        (100, (5, 5), (20, 0), False),
    ],
)
def test_check_diff_limits_the_share_of_removed_rows_and_values(
    limit: int, rows: tuple[int, int], values: tuple[int, int], rejected: bool
) -> None:
    before, left = rows
    added = 1 if left else 0  # which makes up for no removed row
    found = PartitionDiff(rows_before=before, rows_after=left + added, added=added, removed=before - left, restated=0,
                          values_before=values[0], values_after=values[1])  # fmt: skip
    with pytest.raises(ShrankTooMuch) if rejected else nullcontext():
        WriteGuard(shrink_limit_percent=limit).check_diff(found)


@pytest.mark.parametrize(
    ("limit", "bad", "total", "rejected"),
    [
        (100, 7, 7, False),
        (50, 6, 10, True),
        (0, 1, 1000, True),
        (0, 0, 0, False),
        (1, 10, 1000, False),
        (1, 11, 1000, True),
    ],
)
def test_check_bad_rows_limits_the_share_of_bad_rows(limit: int, bad: int, total: int, rejected: bool) -> None:
    guard = WriteGuard(bad_rows_limit_percent=limit)
    with pytest.raises(TooManyBadRows, match=f"^{bad} of {total} rows are bad") if rejected else nullcontext():
        guard.check_bad_rows(bad, total=total, subject="rows are bad")
