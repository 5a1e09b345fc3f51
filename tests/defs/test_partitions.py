"""Partitions: days, weeks and months from the start date."""

from datetime import date

import pytest

from later_reporting_dagster.defs.partitions import build_partitions_def, range_tags
from later_reporting_dagster.rollups.periods import Period


@pytest.mark.parametrize(
    ("period", "start", "first"),
    [
        (Period.WEEK, date(2024, 3, 1), "2024-02-26"),
        (Period.WEEK, date(2024, 3, 4), "2024-03-04"),
        (Period.MONTH, date(2024, 3, 9), "2024-03-01"),
        (Period.DAY, date(2024, 3, 9), "2024-03-09"),
    ],
)
def test_first_partition_contains_the_start_date(period: Period, start: date, first: str) -> None:
    assert build_partitions_def(period, start).get_first_partition_key() == first
    assert set(range_tags(start, start, period=period).values()) == {first}
