"""Compare the rows of a lake with those of a server, row by row and value by value.

Nothing here uses the package's parsers: a mistake in shared code would not be found.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from later_reporting_dagster.lake import Partition
from tests.conftest import expected_stored_row, partition_file, stored_rows

Row = dict[str, Any]


def read_partition(root: Path, partition: tuple[str, Partition]) -> list[Row] | None:
    """Return the stored rows of a partition of a raw table, with `extra` as parsed JSON; None if it does not exist."""
    table_name, each = partition
    location = (root, table_name, each.day, each.instance_id or "")
    if not partition_file(*location).exists():
        return None
    return [row | {"extra": row["extra"] and json.loads(row["extra"])} for row in stored_rows(*location)]


def compare_rows(stored: Sequence[Row], *, required: Iterable[Row], allowed: Iterable[Row]) -> Counter[str]:
    """Compare the stored rows of a partition with JSON rows; count those that are wrong, by kind.

    Args:
        stored: Rows from `read_partition`.
        required: Rows that must be stored.
        allowed: Rows that may be stored: all that the server had at any time during the fetch.
    """
    counts = Counter(map(stored_key, stored))
    expected = {stored_key(row): row for row in map(expected_stored_row, allowed)}
    return +Counter(
        lost=len({(row["instanceId"], row["campaignId"], row["postId"]) for row in required} - counts.keys()),
        doubled=counts.total() - len(counts),
        invented=len(counts.keys() - expected.keys()),
        changed=sum(stored_key(row) in expected and row != expected[stored_key(row)] for row in stored),
    )


def stored_key(row: Row) -> tuple[str, int, int]:
    return (row["instance_id"], row["campaign_id"], row["post_id"])
