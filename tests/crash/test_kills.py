"""Writers killed with SIGKILL at random moments damage nothing, and the next run repairs the lake.

The posts are restated before each start, so that every partition has an old and a new version. After a kill, each
partition exists if it existed before, has exactly the rows of one version, matches its content hash, and is not older
than before. An undisturbed run then writes the newest version of all partitions, and the run after it removes all
staged files of the killed writers.
"""

import os
import random
import time
from pathlib import Path

import pytest

from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, Partition
from later_reporting_dagster.lake.parquet_file import content_hash_of
from tests.conftest import stored_rows
from tests.crash import lake_writers
from tests.crash.child_process import ChildProcess
from tests.crash.restated_sandbox import (
    INGESTED_PARTITIONS,
    RAW_TABLES,
    VERSIONS,
    RestatedSandbox,
    ingest_without_failures,
    restated_sandbox,
)

pytestmark = pytest.mark.faults

KILLS = int(os.environ.get("KILLS", "20"))
TABLES = [table.name for table in RAW_TABLES]

TablePartition = tuple[str, Partition]


def start(sandbox: RestatedSandbox, root: Path, version: int) -> ChildProcess:
    sandbox.restate(version)
    return ChildProcess(ingest_without_failures, root=str(root), base_url=sandbox.base_url)


def check_lake(sandbox: RestatedSandbox, root: Path, seen: dict[TablePartition, int], *, newest: int) -> None:
    """Read all partitions by the lake's readers; update the version seen of each partition."""
    lake = Lake(str(root))
    existing = {(name, each) for name in TABLES for each in lake.partitions(name)}
    assert seen.keys() <= existing <= {(name, each) for name in TABLES for each in INGESTED_PARTITIONS}
    for name, each in existing:
        metadata, table = lake.read_metadata(name, each), lake.read(name, [each], schema=POSTS_SCHEMA)
        assert metadata is not None
        assert metadata.content_hash == content_hash_of(table)
        rows = stored_rows(root, name, each.day, each.instance_id or "")
        recent = range(newest, max(-1, newest - VERSIONS), -1)
        matching = [number for number in recent if sandbox.rows_by_version[number % VERSIONS][name, each] == rows]
        assert matching, f"{each} has the rows of no version"
        assert matching[0] >= seen.get((name, each), 0), f"{each} has the rows of an older version"
        seen[name, each] = matching[0]


def test_writers_killed_at_random_moments_damage_nothing(tmp_path: Path) -> None:
    draws, seen, version, killed = random.Random(0), dict[TablePartition, int](), 0, 0
    with restated_sandbox() as sandbox:
        started = time.monotonic()
        start(sandbox, tmp_path, version).wait_for_success()
        duration = time.monotonic() - started
        check_lake(sandbox, tmp_path, seen, newest=version)
        while killed < KILLS:
            version += 1
            process, delay = start(sandbox, tmp_path, version), draws.uniform(0, duration)
            time.sleep(delay)
            if process.kill():
                killed += 1
            else:
                duration = (duration + delay) / 2  # it ended before: the first one had more to write
            check_lake(sandbox, tmp_path, seen, newest=version)
        version += 1
        start(sandbox, tmp_path, version).wait_for_success()
        check_lake(sandbox, tmp_path, seen, newest=version)
        assert set(seen.values()) == {version}
        assert len(seen) == len(TABLES) * len(INGESTED_PARTITIONS)
        lake_writers.age_staged_files(tmp_path)
        start(sandbox, tmp_path, version + 1).wait_for_success()
    assert lake_writers.staged_files(tmp_path) == []
