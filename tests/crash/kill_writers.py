"""Kill writers of a lake with SIGKILL at random moments, and check the whole lake after each kill.

The writers are the ingest library and `later-reporting backfill`. The posts are restated before each start, so that
every partition has an old and a new version. After a kill, each partition must exist if it existed before, have exactly
the rows of one version, match its content hash, and not be older than before. An undisturbed run must then write the
newest version of all partitions, and the run after it must remove all staged files of the killed writers.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg

from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, Partition, content_hash_of
from tests.conftest import stored_rows
from tests.crash import backfill_command, lake_writers
from tests.crash.fork_server import ChildProcess, fork_server
from tests.crash.restated_sandbox import (
    DAYS,
    INGESTED_PARTITIONS,
    PUBLISHED,
    RAW_TABLES,
    VERSIONS,
    RestatedSandbox,
    restated_sandbox,
)

TablePartition = tuple[str, Partition]


@dataclass(slots=True)
class KillReport:
    """Result of repeated kills.

    Attributes:
        kills: Number of processes that were killed while they ran.
        partitions_read: Number of partitions read after the kills.
        problems: One line for each error.
    """

    kills: int = 0
    partitions_read: int = 0
    problems: list[str] = field(default_factory=list)


def kill_repeatedly(writer: "IngestWriter", *, kills: int, seed: int) -> KillReport:
    """Kill a number of processes of a writer, then let one finish."""
    report, draws, seen = KillReport(), random.Random(seed), dict[TablePartition, int]()
    version = 0
    child, started = writer.start(version), time.monotonic()
    child.wait_for_success()
    duration = time.monotonic() - started
    _check_lake(writer, report, seen, newest=version)
    while report.kills < kills:
        version += 1
        child = writer.start(version)
        delay = draws.uniform(0, duration)
        time.sleep(delay)
        if child.kill():
            report.kills += 1
        else:
            duration = (duration + delay) / 2  # it ended before: the first one had more to write
        _check_lake(writer, report, seen, newest=version)
    version += 1
    report.problems += writer.repair(version)
    _check_lake(writer, report, seen, newest=version)
    report.problems += [f"{each} was not repaired" for each in writer.partitions if seen.get(each) != version]
    lake_writers.age_staged_files(writer.root)
    writer.start(version + 1).wait_for_success()
    report.problems += [f"{file} was not removed" for file in lake_writers.staged_files(writer.root)]
    return report


def _check_lake(writer: "IngestWriter", report: KillReport, seen: dict[TablePartition, int], *, newest: int) -> None:
    """Read all partitions by the lake's readers; update the report and the version seen of each partition."""
    lake = Lake(str(writer.root))
    table_names = {table_name for table_name, _ in writer.partitions}
    existing = {(table_name, each) for table_name in table_names for each in lake.partitions(table_name)}
    report.problems += [f"{each} does not exist" for each in seen.keys() - existing]
    report.problems += [f"{each} is unexpected" for each in existing - set(writer.partitions)]
    for each in existing:
        report.partitions_read += 1
        metadata, table = lake.read_metadata(*each), lake.read(each[0], [each[1]], schema=POSTS_SCHEMA)
        if metadata is None or metadata.content_hash != content_hash_of(table):
            report.problems.append(f"{each} does not match its content hash")
        version = writer.version_of(each, newest=newest)
        if version is None or version < seen.get(each, 0):
            report.problems.append(f"{each} has the rows of no version or of an older one: {version}")
        else:
            seen[each] = version


class IngestWriter:
    """Processes that ingest both raw tables by the library.

    Args:
        root: Root of the lake.
        start: Start a process.
        sandbox: Sandbox to fetch from.
    """

    name = "ingest"
    partitions: list[TablePartition] = [
        (raw_table.name, partition) for raw_table in RAW_TABLES for partition in INGESTED_PARTITIONS
    ]

    def __init__(self, root: Path, start: Callable[[], ChildProcess], sandbox: RestatedSandbox) -> None:
        self.root = root
        self._sandbox = sandbox
        self._start = start

    def start(self, version: int) -> ChildProcess:
        """Restate the posts and start a process."""
        self._sandbox.restate(version)
        return self._start()

    def version_of(self, partition: TablePartition, *, newest: int) -> int | None:
        """Return the version of a partition's rows; None if they are of no recent version."""
        table_name, each = partition
        rows = stored_rows(self.root, table_name, each.day, each.instance_id or "")
        versions = range(newest, max(-1, newest - VERSIONS), -1)
        rows_by_version = self._sandbox.rows_by_version
        return next((each for each in versions if rows_by_version[each % VERSIONS][partition] == rows), None)

    def repair(self, version: int) -> list[str]:
        """Run a process without killing it; return the errors."""
        self.start(version).wait_for_success()
        return []


class BackfillWriter(IngestWriter):
    """Processes that run `later-reporting backfill`, for one raw table, because Dagster's events take long."""

    name = "backfill"
    partitions: list[TablePartition] = [(PUBLISHED.name, partition) for partition in INGESTED_PARTITIONS]

    def __init__(
        self, root: Path, start: Callable[[], ChildProcess], sandbox: RestatedSandbox, *, environment: dict[str, str]
    ) -> None:
        super().__init__(root, start, sandbox)
        self._environment = environment

    def repair(self, version: int) -> list[str]:
        """Run the command in a new process; check that Dagster has a materialization of each day."""
        self._sandbox.restate(version)
        arguments = backfill_command.backfill_arguments(PUBLISHED.name)
        process = backfill_command.start_command(*arguments, environment=self._environment)
        output, _ = process.communicate()
        with dg.DagsterInstance.from_config(self._environment["DAGSTER_HOME"]) as instance:
            materialized = instance.get_materialized_partitions(dg.AssetKey(["later", PUBLISHED.name]))
        problems = [f"the run after the kills failed: {output}"] if process.returncode else []
        if len(materialized) != len(DAYS):
            problems.append(f"Dagster has materializations of {sorted(materialized)} only")
        return problems


@contextmanager
def writers_by_name(directory: Path) -> Iterator[dict[str, IngestWriter]]:
    """Yield all writers by name, each with an empty lake in a directory."""
    ingest_root, backfill_root = directory / "ingest", directory / "backfill"
    with ExitStack() as stack:
        sandbox = stack.enter_context(restated_sandbox())
        environment = backfill_command.user_environment(
            directory, base_url=sandbox.base_url, lake_root=str(backfill_root)
        )
        ingests = stack.enter_context(fork_server("tests.crash.restated_sandbox", log=directory / "ingest.log"))
        backfills = stack.enter_context(
            fork_server("tests.crash.backfill_command", log=directory / "backfill.log", environment=environment)
        )

        def start_ingest() -> ChildProcess:
            return ingests.start("ingest_without_failures", root=str(ingest_root), base_url=sandbox.base_url)

        def start_backfill() -> ChildProcess:
            return backfills.start("backfill", asset=PUBLISHED.name)

        yield {
            IngestWriter.name: IngestWriter(ingest_root, start_ingest, sandbox),
            BackfillWriter.name: BackfillWriter(backfill_root, start_backfill, sandbox, environment=environment),
        }


def kills_by_writer(kills: int) -> dict[str, int]:
    """Split a number of kills among the writers: one in ten for the backfill, which takes long."""
    return {IngestWriter.name: kills - kills // 10, BackfillWriter.name: kills // 10}
