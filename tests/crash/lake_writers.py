"""Synthetic partitions in known versions, and functions that write them, for processes to be killed."""

import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, LakeUnavailable, Partition, WriteResult
from later_reporting_dagster.lake.parquet_file import content_hash_of, read_stored_rows, to_parquet
from later_reporting_dagster.lake.storage import ReplacedMeanwhile
from tests.lake.conftest import rows

TABLE_NAME = "posts"
PARTITIONS = [
    Partition(date(2024, 3, 1) + timedelta(days=day), name) for day in range(4) for name in ("007", "a/b", "é")
]
# Rows of a partition: most are small, some are empty, some take a while to write.
SIZES = [20, 0, 300, 3_000]
_ALL_ROWS = rows(max(SIZES))


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
    """Return all files that are neither partitions nor records of fetches."""
    return [path for path in root.rglob("*") if path.is_file() and path.suffix != ".parquet"]


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


def append(root: str, *, writer: int, updates: int, storage_options: dict[str, Any] | None = None) -> None:
    """Add rows to one file, one at a time, as other writers do at once."""
    lake = Lake(root, storage_options=storage_options)
    for number in range(updates):
        failed: Mapping[None, LakeUnavailable] = {None: ReplacedMeanwhile()}
        while isinstance(failed.get(None), ReplacedMeanwhile):
            stored = lake.read_files(TABLE_NAME, [None])
            before = (
                read_stored_rows(data) if (data := stored[None].data) else pa.table({"id": pa.array([], pa.int64())})
            )
            rows = pa.concat_tables([before, pa.table({"id": pa.array([writer * updates + number], pa.int64())})])
            file = to_parquet(rows, content_hash=content_hash_of(rows), key_values={})
            failed = lake.replace_files(TABLE_NAME, {None: file}, stored=stored)
        assert not failed


def watch(root: str, *, until: int) -> None:
    """Read all partitions repeatedly until they have the version `until`."""
    lake, seen = Lake(root), dict.fromkeys(PARTITIONS, 0)
    while min(seen.values()) < until:
        assert lake.partitions(TABLE_NAME) == sorted(PARTITIONS)
        for partition in PARTITIONS:
            table = lake.read(TABLE_NAME, [partition], schema=POSTS_SCHEMA)
            version = table["campaign_id"][0].as_py() if len(table) else until
            assert table.equals(partition_rows(partition, version)), (partition, version)
            assert version >= seen[partition], (partition, version, seen[partition])
            seen[partition] = version
