"""A lake of posts with nulls, zeros, empty strings, counts that no float can hold, and numeric instance ids."""

from datetime import date, timedelta
from typing import Any

from later_reporting_dagster.lake import POST_COLUMNS, Lake, Partition, Table, posts_table
from tests.lake.conftest import post

POSTS = Table("posts", POST_COLUMNS)
FIRST = date(2024, 1, 3)
DAYS = [FIRST + timedelta(days=offset) for offset in range(3)]
INSTANCES = ("007", "a/b|c")
PARTITIONS = [Partition(day, instance_id) for day in DAYS for instance_id in INSTANCES]
# The smallest positive integer that a float cannot hold.
BEYOND_FLOATS = 2**53 + 1

Row = dict[str, Any]


def rows_of(partition: Partition) -> list[Row]:
    """Return the rows of a partition in the lake, in the columns that the tests compare."""
    instance_id, day = partition.instance_id, partition.day
    return [
        {"date": day, "instance_id": instance_id, "post_id": 1, "impressions": None, "cpm": None, "extra": None},
        {"date": day, "instance_id": instance_id, "post_id": 2, "impressions": 0, "cpm": 0.0, "extra": ""},
        {
            "date": day,
            "instance_id": instance_id,
            "post_id": 3,
            "impressions": BEYOND_FLOATS,
            "cpm": 0.1,
            "extra": "null",
        },
    ]


COLUMNS = list(rows_of(PARTITIONS[0])[0])


def lake_at(root: str) -> Lake:
    """Write all PARTITIONS below a root."""
    lake = Lake(root)
    lake.write_all(
        POSTS.name,
        {
            partition: posts_table(
                [post(**{name: value for name, value in row.items() if name != "date"}) for row in rows_of(partition)]
            )
            for partition in PARTITIONS
        },
    )
    return lake
