"""Processes killed at any moment of a write damage nothing, and the next run repairs the lake."""

import os
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, content_hash_of
from tests.crash import lake_writers
from tests.crash.fork_server import ForkServer
from tests.crash.kill_writers import IngestWriter, kill_repeatedly, kills_by_writer, writers_by_name

KILLS = int(os.environ.get("KILLS", "20"))
PARTITION = lake_writers.PARTITIONS[0]


@pytest.fixture(scope="module")
def victims(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, IngestWriter]]:
    """Writers to be killed, by name."""
    with writers_by_name(tmp_path_factory.mktemp("victims")) as writers:
        yield writers


@pytest.mark.parametrize(("name", "kills"), kills_by_writer(KILLS).items())
def test_writers_killed_at_random_moments_damage_nothing(
    name: str, kills: int, victims: dict[str, IngestWriter]
) -> None:
    report = kill_repeatedly(victims[name], kills=kills, seed=0)

    assert report.problems == []
    assert report.kills == kills
    assert report.partitions_read > kills * len(victims[name].partitions)


@pytest.mark.parametrize("exists_before", [False, True], ids=["first write", "replacement"])
def test_write_killed_before_any_file_change_leaves_the_old_or_new_rows(
    exists_before: bool, tmp_path: Path, writers: ForkServer
) -> None:
    old, new = lake_writers.partition_rows(PARTITION, 1), lake_writers.partition_rows(PARTITION, 2)
    found: list[str] = []
    for step in range(1, 1000):
        root = tmp_path / str(step)
        lake = Lake(str(root))
        if exists_before:
            lake.write(lake_writers.TABLE_NAME, PARTITION, old)
        if writers.start("write_and_die", root=str(root), version=2, step=step).wait() == 0:
            break
        existing = lake.partitions(lake_writers.TABLE_NAME)
        table = lake.read(lake_writers.TABLE_NAME, [PARTITION], schema=POSTS_SCHEMA)
        assert existing == ([PARTITION] if exists_before or len(table) else [])
        found.append("old" if table.equals(old) else "new" if table.equals(new) else "none")
        assert found[-1] in (("old", "new") if exists_before else ("none", "new"))
        if existing:
            assert_all_readers_return(table, root)

        lake_writers.age_staged_files(root)
        lake.write(lake_writers.TABLE_NAME, PARTITION, new)
        assert lake_writers.staged_files(root) == []
        assert lake.partitions(lake_writers.TABLE_NAME) == [PARTITION]
        assert_all_readers_return(new, root)

    # The new rows are stored from some step on.
    assert set(found) == {"old" if exists_before else "none", "new"}
    assert found == sorted(found, key=lambda rows: rows == "new")
    assert len(found) > 8


def test_compaction_killed_before_any_file_change_changes_no_row(tmp_path: Path, writers: ForkServer) -> None:
    """With two instances: one without a compacted month, and one whose compacted month is outdated."""
    partitions = [each for each in lake_writers.PARTITIONS if each.instance_id != "é"]
    lake, tables = Lake(str(tmp_path)), {each: lake_writers.partition_rows(each, 1) for each in partitions}
    lake.write_all(
        lake_writers.TABLE_NAME, {each: table for each, table in tables.items() if each.instance_id == "a/b"}
    )
    set_modification_times(tmp_path, at=1_600_000_000)
    lake_writers.compact(lake)
    tables[PARTITION] = lake_writers.partition_rows(PARTITION, 2)
    compacted = tmp_path / "_compacted"
    old = shutil.copytree(compacted, tmp_path.with_name("old"))
    lake.write_all(lake_writers.TABLE_NAME, tables)
    set_modification_times(tmp_path, at=1_700_000_000)
    rows = pa.concat_tables(tables.values())

    kills = 0
    for step in range(1, 1000):
        status = writers.start("compact_and_die", root=str(tmp_path), step=step).wait()
        assert lake.read(lake_writers.TABLE_NAME, partitions, schema=POSTS_SCHEMA).equals(rows)
        assert lake.partitions(lake_writers.TABLE_NAME) == sorted(partitions)
        if status == 0:
            break
        lake_writers.age_staged_files(tmp_path)
        shutil.rmtree(compacted)
        shutil.copytree(old, compacted)
        kills = step
    assert kills > 20
    assert lake_writers.staged_files(tmp_path) == []
    assert [month.days for month in lake_writers.compact(lake)] == [4, 4]


def set_modification_times(root: Path, *, at: int) -> None:
    """Set the modification times of partitions: compaction skips recent files and detects changes by them."""
    for path in root.glob(f"{lake_writers.TABLE_NAME}/**/part-0.parquet"):
        os.utime(path, (at, at))


def assert_all_readers_return(table: pa.Table, root: Path) -> None:
    """Assert that the lake's readers, PyArrow and pandas return a table, despite staged files in the folder."""
    lake, folder = Lake(str(root)), root / lake_writers.TABLE_NAME
    metadata = lake.read_metadata(lake_writers.TABLE_NAME, PARTITION)
    assert metadata is not None
    assert metadata.content_hash == content_hash_of(table)
    assert lake.read(lake_writers.TABLE_NAME, [PARTITION], schema=POSTS_SCHEMA).equals(table)
    assert lake.dataset(lake_writers.TABLE_NAME, POSTS_SCHEMA).to_table(columns=POSTS_SCHEMA.names).equals(table)
    assert pa.dataset.dataset(folder).to_table().cast(POSTS_SCHEMA).equals(table)
    assert pq.read_table(folder, partitioning=None).cast(POSTS_SCHEMA).equals(table)
    assert pd.read_parquet(folder, partitioning=None)["post_id"].tolist() == table["post_id"].to_pylist()
    assert {each.day for each in lake.partitions(lake_writers.TABLE_NAME)} == {date(2024, 3, 1)}
