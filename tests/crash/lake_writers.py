"""Synthetic partitions in known versions, and functions that write them, for processes to be killed."""

import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import pyarrow as pa

from later_reporting_dagster.contract import Post
from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, Partition, WriteResult, posts_table
from later_reporting_dagster.lake.compaction import MonthCompactionResult
from tests.lake.conftest import rows

TABLE_NAME = "posts"
PARTITIONS = [
    Partition(date(2024, 3, 1) + timedelta(days=day), name) for day in range(4) for name in ("007", "a/b", "é")
]
# Rows of a partition: most are small, some are empty, some take a while to write.
SIZES = [20, 0, 300, 3_000]
_ALL_ROWS = rows(max(SIZES))
# C functions that change files. An `open` that creates a file is followed by one of them.
_CHANGING_FUNCTIONS = {"close", "fsync", "link", "mkdir", "remove", "rename", "replace", "unlink", "write"}


def partition_rows(partition: Partition, version: int) -> pa.Table:
    """Return the rows of a partition in a version. The campaign id is the version; every third version is shorter."""
    size = SIZES[PARTITIONS.index(partition) % len(SIZES)] - (version % 3 == 0)
    table = _ALL_ROWS.slice(0, max(0, size))
    for name, value in (("campaign_id", version), ("instance_id", partition.instance_id)):
        index = table.schema.get_field_index(name)
        field = table.schema.field(index)
        table = table.set_column(index, field, pa.repeat(pa.scalar(value, field.type), len(table)))
    return table


def staged_files(root: Path) -> list[Path]:
    """Return all files that are not partitions."""
    return [path for path in root.rglob("*") if path.is_file() and path.name != "part-0.parquet"]


def age_staged_files(root: Path) -> None:
    """Change the time in the names of staged files to two hours ago, so that the next write removes them."""
    for file in staged_files(root):
        _, created, token = file.name.split("-")
        file.rename(file.with_name(f".stage-{int(created) - 7200}-{token}"))


def write(root: str, *, version: int, seed: int, storage_options: dict[str, Any] | None = None) -> None:
    """Write all partitions in a version, in random order, in batches of one to four."""
    lake = Lake(root, storage_options=storage_options)
    order, size = random.Random(seed).sample(PARTITIONS, len(PARTITIONS)), 1 + seed % 4

    def write_some(start: int) -> None:
        tables = {each: partition_rows(each, version) for each in order[start : start + size]}
        results = lake.write_all(TABLE_NAME, tables).values()
        assert all(isinstance(each, WriteResult) for each in results), results

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(write_some, range(0, len(order), size)))


def watch(root: str, *, until: int) -> None:
    """Read all partitions repeatedly until they have the version `until`.

    Raises:
        AssertionError: A partition is missing, incomplete or older than before.
    """
    lake, seen = Lake(root), dict.fromkeys(PARTITIONS, 0)
    while min(seen.values()) < until:
        assert lake.partitions(TABLE_NAME) == sorted(PARTITIONS)
        for partition in PARTITIONS:
            table = lake.read(TABLE_NAME, [partition], schema=POSTS_SCHEMA)
            version = table["campaign_id"][0].as_py() if len(table) else until
            assert table.equals(partition_rows(partition, version)), (partition, version)
            assert version >= seen[partition], (partition, version, seen[partition])
            seen[partition] = version


def write_and_die(root: str, *, version: int, step: int) -> None:
    """Write one partition, and die before a call that changes files.

    Args:
        root: Root of the lake.
        version: Version to write.
        step: Number of the call, from 1. If the write makes fewer calls, the process survives.
    """
    lake, partition = Lake(root), PARTITIONS[0]
    table = partition_rows(partition, version)
    with _dying_at(step):
        lake.write(TABLE_NAME, partition, table)


def write_posts_and_die(root: str, *, table_name: str, posts: list[tuple[str, str, list[Any]]], step: int) -> None:
    """Write several partitions, each given as day, instance and posts, and die at a step as in `write_and_die`."""
    tables = {
        Partition(date.fromisoformat(day), instance_id): posts_table(msgspec.convert(rows, list[Post]))
        for day, instance_id, rows in posts
    }
    lake = Lake(root)
    with _dying_at(step):
        lake.write_all(table_name, tables)


def compact_and_die(root: str, *, step: int) -> None:
    """Compact the lake, and die at a step as in `write_and_die`."""
    lake = Lake(root)
    with _dying_at(step):
        compact(lake)


def compact(lake: Lake) -> list[MonthCompactionResult]:
    """Compact the month of the partitions, which is closed."""
    return list(lake.compact(TABLE_NAME, closed_before=date(2024, 5, 1), now=datetime.now(UTC)))


@contextmanager
def _dying_at(step: int) -> Iterator[None]:
    profile = _kill_at(step)
    threading.setprofile(profile)
    sys.setprofile(profile)
    yield
    sys.setprofile(None)


def _kill_at(step: int) -> Callable[[FrameType, str, Any], None]:
    steps = 0

    def profile(_frame: FrameType, event: str, function: Any) -> None:
        nonlocal steps
        if event == "c_call" and _changes_files(function):
            steps += 1
            if steps == step:
                os.kill(os.getpid(), signal.SIGKILL)

    return profile


def _changes_files(function: Any) -> bool:
    """Return whether a C function of the operating system or of an open file changes files."""
    module = getattr(function, "__module__", None) or type(getattr(function, "__self__", None)).__module__
    return module in ("posix", "fcntl", "io", "_io") and function.__name__ in _CHANGING_FUNCTIONS
