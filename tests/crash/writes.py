"""Synthetic partitions of which every version is known, and processes that do nothing but write them."""

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
from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, Partition, Written, posts_table
from later_reporting_dagster.lake.compaction import CompactedMonth
from tests.lake.conftest import rows

ASSET = "posts"
PARTITIONS = [
    Partition(date(2024, 3, 1) + timedelta(days=day), name) for day in range(4) for name in ("007", "a/b", "é")
]
# Most partitions are small, some have no rows, and one takes a while to write.
SIZES = [20, 0, 300, 3_000]
_MOST = rows(max(SIZES))
# An `open` that makes a file is followed by one of them.
_CHANGING = {"close", "flock", "fsync", "link", "mkdir", "remove", "rename", "replace", "unlink", "write"}


def version_of(partition: Partition, version: int) -> pa.Table:
    """What a partition holds as of a version, which its rows tell by their campaign; every third version is shorter."""
    size = SIZES[PARTITIONS.index(partition) % len(SIZES)] - (version % 3 == 0)
    table = _MOST.slice(0, max(0, size))
    for name, value in (("campaign_id", version), ("instance_id", partition.instance_id)):
        at = table.schema.get_field_index(name)
        field = table.schema.field(at)
        table = table.set_column(at, field, pa.repeat(pa.scalar(value, field.type), len(table)))
    return table


def stages(root: Path) -> list[Path]:
    """All files that are no partition's."""
    return [path for path in root.rglob("*") if path.is_file() and path.name != "part-0.parquet"]


def age_stages(root: Path) -> None:
    """Lets some seconds go by, which a stage's name tells: its writer is then known to be dead by its lock."""
    for stage in stages(root):
        _, made, token = stage.name.split("-")
        stage.rename(stage.with_name(f".stage-{int(made) - 60}-{token}"))


def write(root: str, *, version: int, seed: int) -> None:
    """Writes all partitions as of `version`, in an order of its own, from one to four of them together."""
    lake = Lake(root)
    order, size = random.Random(seed).sample(PARTITIONS, len(PARTITIONS)), 1 + seed % 4

    def write_some(start: int) -> None:
        tables = {each: version_of(each, version) for each in order[start : start + size]}
        outcomes = lake.write_all(ASSET, tables).values()
        assert all(isinstance(each, Written) for each in outcomes), outcomes

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(write_some, range(0, len(order), size)))


def watch(root: str, *, until: int) -> None:
    """Reads all partitions, all the time, until they are of the version `until`: each present, whole, and never older.

    Raises:
        AssertionError: one is not.
    """
    lake, seen = Lake(root), dict.fromkeys(PARTITIONS, 0)
    while min(seen.values()) < until:
        assert lake.partitions(ASSET) == sorted(PARTITIONS)
        for partition in PARTITIONS:
            table = lake.read(ASSET, [partition], schema=POSTS_SCHEMA)
            version = table["campaign_id"][0].as_py() if len(table) else until
            assert table.equals(version_of(partition, version)), (partition, version)
            assert version >= seen[partition], (partition, version, seen[partition])
            seen[partition] = version


def die_in_a_write(root: str, *, version: int, step: int) -> None:
    """Writes one partition and dies at the given step of it, counted from 1: just before a call that changes files.

    Ends in peace when the write has fewer steps.
    """
    lake, partition = Lake(root), PARTITIONS[0]
    table = version_of(partition, version)
    with _dying_at(step):
        lake.write(ASSET, partition, table)


def die_writing_posts(root: str, *, asset: str, posts: list[tuple[str, str, list[Any]]], step: int) -> None:
    """The same of several partitions together, each given by its day, its instance and its posts as JSON."""
    tables = {
        Partition(date.fromisoformat(day), instance_id): posts_table(msgspec.convert(rows, list[Post]))
        for day, instance_id, rows in posts
    }
    lake = Lake(root)
    with _dying_at(step):
        lake.write_all(asset, tables)


def die_compacting(root: str, *, step: int) -> None:
    """The same of a compaction."""
    lake = Lake(root)
    with _dying_at(step):
        compact(lake)


def compact(lake: Lake) -> list[CompactedMonth]:
    """Compacts the month of the partitions, which is over."""
    return list(lake.compact(ASSET, closed_before=date(2024, 5, 1), now=datetime.now(UTC)))


@contextmanager
def _dying_at(step: int) -> Iterator[None]:
    profile = _reaper(step)
    threading.setprofile(profile)
    sys.setprofile(profile)
    yield
    sys.setprofile(None)


def _reaper(step: int) -> Callable[[FrameType, str, Any], None]:
    steps = 0

    def profile(_frame: FrameType, event: str, function: Any) -> None:
        nonlocal steps
        if event == "c_call" and _changes_files(function):
            steps += 1
            if steps == step:
                os.kill(os.getpid(), signal.SIGKILL)

    return profile


def _changes_files(function: Any) -> bool:
    """Whether it is a call of the system's, or of an open file, that may leave the disk otherwise than it was."""
    home = getattr(function, "__module__", None) or type(getattr(function, "__self__", None)).__module__
    return home in ("posix", "fcntl", "io", "_io") and function.__name__ in _CHANGING
