"""Compare the rows of a lake with those of a server, row by row and value by value.

Nothing here uses the package's parsers: a mistake in shared code would not be found.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx

from later_reporting_dagster.lake import Partition
from later_reporting_dagster.server import Client
from tests.conftest import NO_RATE_LIMIT, expected_stored_row, partition_file, stored_rows
from tests.faulty_sandbox import FAULTS_HEADER
from tests.server.lake_store.clients import authenticate, days_query, fetch_rows

Row = dict[str, Any]
TablePartition = tuple[str, Partition]
"""A raw table and one of its partitions."""
RowKey = tuple[str, int, int]

DATE_BASES = {"post_metrics_daily": "performance_date", "posts_published": "post_date"}

_COUNTS = ("engagements", "impressions", "paidEngagements", "paidImpressions")
_DECIMALS = ("cpe", "cpm", "engagementRate", "estimatedValueGenerated", "paidCpe", "paidCpm", "paidEngagementRate")
_METRICS = ",".join((*_COUNTS, *_DECIMALS))


def fetch_sandbox_rows(
    base_url: str, *, days: Iterable[date], instance_ids: Iterable[str], by_cursor: bool = False
) -> dict[TablePartition, list[Row]]:
    """Fetch the current rows of a sandbox, without faults, by partition and in the form of the paged version."""
    ids = list(instance_ids)
    page = [("limit", 100), ("metrics", _METRICS)] if by_cursor else [("pageSize", 100)]
    found: dict[TablePartition, list[Row]] = {}
    with httpx.Client(base_url=base_url, headers={FAULTS_HEADER: "off"}) as client:
        authenticate(client, Client(NO_RATE_LIMIT.client_id, NO_RATE_LIMIT.client_secret))
        for table_name, date_basis in DATE_BASES.items():
            for day in days:
                found |= {(table_name, Partition(day, instance_id)): [] for instance_id in ids}
                for row in fetch_rows(client, days_query(day, day, ("dateBasis", date_basis), *page)):
                    found[table_name, Partition(day, row["instanceId"])].append(flatten_metrics(row))
    return found


def flatten_metrics(row: Row) -> Row:
    """Return a row of the cursor version in the form of the paged version."""
    return {name: value for name, value in row.items() if name != "metrics"} | row.get("metrics", {})


def is_storable(row: Row, table_name: str) -> bool:
    """Return whether a table can store a row; others must be quarantined. Counts of a day may be negative."""
    minimum = -(10**11) if table_name == "post_metrics_daily" else 0
    numbers = {name: row[name] for name in (*_COUNTS, *_DECIMALS) if isinstance(row.get(name), int | float)}
    return (
        all(_is_whole(row.get(name)) for name in ("campaignId", "postId"))
        and all(minimum <= numbers[name] <= 10**11 for name in numbers.keys() & _COUNTS)
        and all(abs(numbers[name]) <= 10**9 for name in numbers.keys() & _DECIMALS)
        and (_instant(row["postDate"]) is not None or table_name == "post_metrics_daily")
    )


def expected_row(row: Row) -> Row:
    """Return a JSON row as it must be stored: values that cannot be read are null, and in `extra` as they were sent."""
    profile = row.get("creatorProfile") or {}
    read = {name: int(value) if isinstance(value, str) else value for name, value in row.items() if name in _COUNTS}
    instant = _instant(row["postDate"])
    unread = {name: row[name] for name, value in read.items() if value is not None and not _is_whole(value)}
    unread |= {} if instant else {"postDate": row["postDate"]}
    unread_names = {name: text for name, text in profile.items() if isinstance(text, str) and not _is_unicode(text)}
    readable = row | read | dict.fromkeys(unread) | {"postDate": (instant or datetime.now(UTC)).isoformat()}
    if unread_names:
        readable["creatorProfile"] = profile | dict.fromkeys(unread_names)
        unread["creatorProfile"] = unread_names
    stored = expected_stored_row(readable)
    extra = (stored["extra"] or {}) | unread
    return stored | {"post_date": instant, "extra": extra or None}


def _is_whole(value: object) -> bool:
    return isinstance(value, int | float) and value == value // 1 and -(2**63) <= value < 2**63


def _instant(text: str) -> datetime | None:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_partition(root: Path, partition: TablePartition) -> list[Row] | None:
    """Return the stored rows of a partition, with `extra` as parsed JSON; None if it does not exist."""
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
    expected = {stored_key(row): row for row in map(expected_row, allowed)}
    return +Counter(
        lost=len({(row["instanceId"], row["campaignId"], row["postId"]) for row in required} - counts.keys()),
        doubled=counts.total() - len(counts),
        invented=len(counts.keys() - expected.keys()),
        changed=sum(stored_key(row) in expected and row != expected[stored_key(row)] for row in stored),
    )


def stored_key(row: Row) -> RowKey:
    return (row["instance_id"], row["campaign_id"], row["post_id"])


def count_by_json(rows: Iterable[Row]) -> Counter[str]:
    """Count JSON rows by their text, so that rows with NaN can be compared."""
    return Counter(json.dumps(row, sort_keys=True) for row in rows)
