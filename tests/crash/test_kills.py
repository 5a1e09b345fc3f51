"""Writers killed with SIGKILL at random moments damage nothing, and the next run repairs the lake.

The writers are the ingest library and `later-reporting backfill`. The posts are restated before each start, so that
every partition has an old and a new version. After a kill, each partition exists if it existed before, has exactly the
rows of one version, matches its content hash, and is not older than before. An undisturbed run then writes the newest
version of all partitions, and the run after it removes all staged files of the killed writers.
"""

import os
import random
import time
from pathlib import Path

import dagster as dg
import pytest

from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, Partition
from later_reporting_dagster.lake.parquet_file import content_hash_of
from tests.conftest import Service, Truth, stored_rows
from tests.crash import backfill_command, lake_writers
from tests.crash.child_process import ChildProcess
from tests.crash.restated_sandbox import (
    DAYS,
    INGESTED_PARTITIONS,
    POSTS_TABLES,
    PUBLISHED,
    ingest_without_failures,
    more_impressions,
    with_more_impressions,
)

pytestmark = pytest.mark.faults

KILLS = int(os.environ.get("KILLS", "20"))
VERSIONS = 3

TablePartition = tuple[str, Partition]


class Writer:
    """Starts processes that write a lake: by the ingest library, or by the command, which writes one table only."""

    def __init__(self, directory: Path, service: Service, truth: Truth, *, by_command: bool) -> None:
        self.root = directory / "lake"
        self.tables = {table.name: table for table in ([PUBLISHED] if by_command else POSTS_TABLES)}
        self.partitions = [(name, each) for name in self.tables for each in INGESTED_PARTITIONS]
        self._service, self._truth, self._by_command = service, truth, by_command
        self.environment = backfill_command.user_environment(
            directory, base_url=service.base_url, lake_root=str(self.root)
        )

    def start(self, version: int) -> ChildProcess:
        self._service.transform = more_impressions(version % VERSIONS)
        if self._by_command:
            return ChildProcess(backfill_command.backfill, asset=PUBLISHED.name, environment=self.environment)
        return ChildProcess(ingest_without_failures, root=str(self.root), base_url=self._service.base_url)

    def check_lake(self, seen: dict[TablePartition, int], *, newest: int) -> None:
        """Read all partitions by the lake's readers; update the version seen of each partition."""
        lake = Lake(str(self.root))
        existing = {(name, each) for name in self.tables for each in lake.partitions(name)}
        assert seen.keys() <= existing <= {*self.partitions}
        for name, each in existing:
            metadata, table = lake.read_metadata(name, each), lake.read(name, [each], schema=POSTS_SCHEMA)
            assert metadata is not None
            assert metadata.content_hash == content_hash_of(table)
            rows = stored_rows(self.root, name, each.day, each.instance_id or "")
            first = self._truth.partition(self.tables[name].date_basis.value, each.day, each.instance_id or "")
            recent = range(newest, max(-1, newest - VERSIONS), -1)
            matching = [each for each in recent if with_more_impressions(first, each % VERSIONS) == rows]
            assert matching, f"{each} has the rows of no version"
            assert matching[0] >= seen.get((name, each), 0), f"{each} has the rows of an older version"
            seen[name, each] = matching[0]


# The command takes long to start.
@pytest.mark.parametrize(("by_command", "kills"), [(False, KILLS - KILLS // 10), (True, KILLS // 10)])
def test_writers_killed_at_random_moments_damage_nothing(
    by_command: bool, kills: int, service: Service, truth: Truth, tmp_path: Path
) -> None:
    draws, seen, version, killed = random.Random(0), dict[TablePartition, int](), 0, 0
    writer = Writer(tmp_path, service, truth, by_command=by_command)
    started = time.monotonic()
    writer.start(version).wait_for_success()
    duration = time.monotonic() - started
    writer.check_lake(seen, newest=version)
    while killed < kills:
        version += 1
        process, delay = writer.start(version), draws.uniform(0, duration)
        time.sleep(delay)
        if process.kill():
            killed += 1
        else:
            duration = (duration + delay) / 2  # it ended before: the first one had more to write
        writer.check_lake(seen, newest=version)
    version += 1
    writer.start(version).wait_for_success()
    writer.check_lake(seen, newest=version)
    assert seen == dict.fromkeys(writer.partitions, version)
    lake_writers.age_staged_files(writer.root)
    writer.start(version + 1).wait_for_success()
    assert lake_writers.staged_files(writer.root) == []
    if by_command:
        with dg.DagsterInstance.from_config(writer.environment["DAGSTER_HOME"]) as instance:
            materialized = instance.get_materialized_partitions(dg.AssetKey(["later", PUBLISHED.name]))
        assert len(materialized) == len(DAYS)
