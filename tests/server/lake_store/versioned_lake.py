"""A lake whose rows show which version of a partition they belong to, and whose partitions are replaced."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path

import pyarrow as pa

from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, Partition
from tests.server.lake_store.clients import Row
from tests.services import WAIT_SECONDS

FIRST_DAY = date(2024, 3, 1)
DAYS = [FIRST_DAY + timedelta(days=offset) for offset in range(3)]
INSTANCE_IDS = ("north", "a/b")
PARTITIONS = [Partition(day, name) for day in DAYS for name in INSTANCE_IDS]
TABLES = {"post_date": "posts_published", "performance_date": "post_metrics_daily"}
DIGITS = 10**6
"""A day's version is a digit of the engagements: the digits of several days do not add up."""


def post_ids(version: int) -> range:
    """Return the posts of a version: their number and the first one differ from version to version."""
    return range(version * 5 % 7, version * 5 % 7 + 15 + version * 3 % 11)


def stored_rows(partition: Partition, version: int, *, date_basis: str) -> list[Row]:
    offset = (partition.day - FIRST_DAY).days
    published = partition.day if date_basis == "post_date" else FIRST_DAY
    return [
        {
            "instance_id": partition.instance_id,
            "campaign_id": 7,
            "post_id": number + (1000 * offset if date_basis == "post_date" else 0),
            "content_type": "tiktok",
            "platform": "tiktok",
            "post_date": datetime(published.year, published.month, published.day, number % 5, tzinfo=UTC),
            "engagements": version * DIGITS**offset,
            "impressions": number,
        }
        for number in post_ids(version)
    ]


def write_version(lake: Lake, partition: Partition, version: int, *, date_basis: str) -> None:
    rows = stored_rows(partition, version, date_basis=date_basis)
    lake.write(TABLES[date_basis], partition, pa.Table.from_pylist(rows, POSTS_SCHEMA))


def write_versions(root: Path, version: int, *, date_basis: str = "post_date") -> None:
    for partition in PARTITIONS:
        write_version(Lake(str(root)), partition, version, date_basis=date_basis)


def versions_of(rows: Sequence[Row], *, date_basis: str) -> dict[Partition, int]:
    """Return the version of each partition, and assert that the rows have all its posts once and no other."""
    keys = [(row["instanceId"], row["campaignId"], row["postId"]) for row in rows]
    assert len({*keys}) == len(keys)
    found: dict[Partition, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for row in rows:
        for offset, day in enumerate(DAYS):
            if version := row["engagements"] // DIGITS**offset % DIGITS:
                number = row["postId"] - (1000 * offset if date_basis == "post_date" else 0)
                found[Partition(day, row["instanceId"])][version].add(number)
    assert {*found} == {*PARTITIONS}
    for partition, posts in found.items():
        assert len(posts) == 1, f"{partition} has rows of the versions {sorted(posts)}"
        ((version, numbers),) = posts.items()
        assert numbers == {*post_ids(version)}, f"{partition}, version {version}"
    return {partition: next(iter(posts)) for partition, posts in found.items()}


@contextmanager
def replacing(root: Path, *, date_basis: str) -> Iterator[Callable[[], None]]:
    """Replace one partition after the other while the block runs; yield a function that waits for a replacement."""
    replaced, ended = threading.Event(), threading.Event()

    def replace() -> None:
        for version in count(2):
            for partition in PARTITIONS:
                if ended.is_set():
                    return
                write_version(Lake(str(root)), partition, version, date_basis=date_basis)
                replaced.set()

    def wait() -> None:
        replaced.clear()
        assert replaced.wait(WAIT_SECONDS)

    thread = threading.Thread(target=replace, daemon=True)
    thread.start()
    try:
        yield wait
    finally:
        ended.set()
        thread.join(WAIT_SECONDS)
