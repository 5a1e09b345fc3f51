"""A process that dies in a write, at any moment, damages nothing, and whoever comes next repairs all."""

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
from tests.crash import writes
from tests.crash.campaign import Landings, campaign, kinds, shares
from tests.crash.nursery import Nursery

KILLS = int(os.environ.get("KILLS", "20"))
PARTITION = writes.PARTITIONS[0]


@pytest.fixture(scope="module")
def victims(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Landings]]:
    with kinds(tmp_path_factory.mktemp("campaign")) as victims:
        yield victims


@pytest.mark.parametrize(("name", "kills"), shares(KILLS).items())
def test_killed_at_random_moments_nothing_is_damaged_and_the_next_run_repairs_all(
    name: str, kills: int, victims: dict[str, Landings]
) -> None:
    tally = campaign(victims[name], kills=kills, seed=0)

    assert tally.damaged == []
    assert tally.kills == kills
    assert tally.looked_at > kills * len(victims[name].cells)


@pytest.mark.parametrize("there_before", [False, True], ids=["first write", "replacement"])
def test_a_write_killed_before_each_change_that_it_makes_leaves_the_old_rows_or_the_new(
    there_before: bool, tmp_path: Path, writers: Nursery
) -> None:
    old, new = writes.version_of(PARTITION, 1), writes.version_of(PARTITION, 2)
    outcomes: list[str] = []
    for step in range(1, 1000):
        root = tmp_path / str(step)
        lake = Lake(str(root))
        if there_before:
            lake.write(writes.ASSET, PARTITION, old)
        if writers.start("die_in_a_write", root=str(root), version=2, step=step).wait() == 0:
            break
        present = lake.partitions(writes.ASSET)
        table = lake.read(writes.ASSET, [PARTITION], schema=POSTS_SCHEMA)
        assert present == ([PARTITION] if there_before or len(table) else [])
        outcomes.append("old" if table.equals(old) else "new" if table.equals(new) else "none")
        assert outcomes[-1] in (("old", "new") if there_before else ("none", "new"))
        if present:
            assert_every_reader_finds(table, root)

        writes.age_stages(root)
        lake.write(writes.ASSET, PARTITION, new)
        assert writes.stages(root) == []
        assert lake.partitions(writes.ASSET) == [PARTITION]
        assert_every_reader_finds(new, root)

    # From some step on the new rows are there, and stay.
    assert set(outcomes) == {"old" if there_before else "none", "new"}
    assert outcomes == sorted(outcomes, key=lambda outcome: outcome == "new")
    assert len(outcomes) > 8


def test_a_compaction_killed_before_each_change_that_it_makes_changes_no_row(tmp_path: Path, writers: Nursery) -> None:
    """Of two instances: one whose month is copied for the first time, and one whose copy is out of date."""
    partitions = [each for each in writes.PARTITIONS if each.instance_id != "é"]
    lake, now = Lake(str(tmp_path)), {each: writes.version_of(each, 1) for each in partitions}
    lake.write_all(writes.ASSET, {each: table for each, table in now.items() if each.instance_id == "a/b"})
    settle(tmp_path, at=1_600_000_000)
    writes.compact(lake)
    now[PARTITION] = writes.version_of(PARTITION, 2)
    before = tmp_path / "_compacted"
    old = shutil.copytree(before, tmp_path.with_name("old"))
    lake.write_all(writes.ASSET, now)
    settle(tmp_path, at=1_700_000_000)
    rows = pa.concat_tables(now.values())

    finished = 0
    for step in range(1, 1000):
        status = writers.start("die_compacting", root=str(tmp_path), step=step).wait()
        assert lake.read(writes.ASSET, partitions, schema=POSTS_SCHEMA).equals(rows)
        assert lake.partitions(writes.ASSET) == sorted(partitions)
        if status == 0:
            break
        writes.age_stages(tmp_path)
        shutil.rmtree(before)
        shutil.copytree(old, before)
        finished = step
    assert finished > 20
    assert writes.stages(tmp_path) == []
    assert [month.days for month in writes.compact(lake)] == [4, 4]


def settle(root: Path, *, at: int) -> None:
    """Files are compacted when their time of change is past, and told apart by it."""
    for path in root.glob(f"{writes.ASSET}/**/part-0.parquet"):
        os.utime(path, (at, at))


def assert_every_reader_finds(table: pa.Table, root: Path) -> None:
    """The lake's own readers, and those that are given the folder and know nothing of stages."""
    lake, folder = Lake(str(root)), root / writes.ASSET
    facts = lake.facts(writes.ASSET, PARTITION)
    assert facts is not None
    assert facts.content_hash == content_hash_of(table)
    assert lake.read(writes.ASSET, [PARTITION], schema=POSTS_SCHEMA).equals(table)
    assert lake.dataset(writes.ASSET, POSTS_SCHEMA).to_table(columns=POSTS_SCHEMA.names).equals(table)
    assert pa.dataset.dataset(folder).to_table().cast(POSTS_SCHEMA).equals(table)
    assert pq.read_table(folder, partitioning=None).cast(POSTS_SCHEMA).equals(table)
    assert pd.read_parquet(folder, partitioning=None)["post_id"].tolist() == table["post_id"].to_pylist()
    assert {each.day for each in lake.partitions(writes.ASSET)} == {date(2024, 3, 1)}
