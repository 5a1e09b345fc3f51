"""One trial: fetch from a sandbox with a fault by the ingest library, then compare the lake with the sandbox."""

import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path

from later_reporting_dagster.client import ClientCredentials, LaterClient, RateLimiter
from later_reporting_dagster.contract import CURSOR, PAGED, ApiVersion, DateBasis
from later_reporting_dagster.ingest.partition_results import FailedPartition, PartitionResult
from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.lake.tables import RawTable
from later_reporting_dagster.server.sandbox import SandboxOptions, World, running_server
from tests.conftest import INSTANCE_IDS, NO_RATE_LIMIT, Service
from tests.faulty_sandbox import POST_CHANGING_FAULTS, FaultSettings, FaultySandbox
from tests.ingest.conftest import run_ingest
from tests.reliability.lake_comparison import (
    DATE_BASES,
    Row,
    TablePartition,
    compare_rows,
    count_by_json,
    fetch_sandbox_rows,
    flatten_metrics,
    is_storable,
    read_partition,
)

# Around February 29.
DAYS = [date(2024, 2, 27), date(2024, 2, 28), date(2024, 2, 29), date(2024, 3, 1), date(2024, 3, 2)]
PARTITIONS: list[TablePartition] = [
    (table_name, Partition(day, name)) for table_name in DATE_BASES for day in DAYS for name in INSTANCE_IDS
]
FOUND_BY_VERIFICATION = "post-exchanged"
"""The fault that totals cannot show: between two numbered pages, a post is removed and another one added."""

TIMEOUT_SECONDS = 1.0
# A short window: the client waits for its end after a 429.
OPTIONS = SandboxOptions(requests_per_window=NO_RATE_LIMIT.requests_per_window, window_seconds=0.05)
SETTINGS = FaultSettings(
    retry_after_seconds=0,
    slow_seconds=2 * TIMEOUT_SECONDS,
    huge_bytes=36 * 2**20,  # more than the client reads
    max_changes=4,
)


class Trials:
    """Trials with sandboxes of the same world.

    A trial fails if a row was lost, doubled, invented or changed. It returns numbers: of faults `injected`, or of
    malformed rows served; of partitions `written`, and `failed` while there were faults; of rows `quarantined`.

    Args:
        posts_per_day: Mean number of posts of an instance a day.
        api_version: API version of the sandboxes at their start. The client must detect it.
    """

    def __init__(self, *, posts_per_day: int, api_version: ApiVersion = PAGED) -> None:
        self._options = replace(OPTIONS, api_version=api_version)
        self._world = World(
            first_day=date(2024, 2, 1),
            last_day=date(2024, 3, 10),
            seed=25,
            instances=1,
            posts_per_day=posts_per_day,
            extra_instance_ids=INSTANCE_IDS[1:],
        )
        with self._sandbox({}, {}, seed=0) as (_, base_url):
            self._all_rows = self._fetch_rows(base_url)

    def run_fault(
        self, name: str, *, share: float, seed: int, verify_share: float | None = None, may_miss: bool = False
    ) -> Counter[str]:
        """Run a trial of one fault, then fetch without faults what failed, or all if the fault changes posts.

        Args:
            name: Name of the fault.
            share: Share of the requests with the fault.
            seed: Selects the requests.
            verify_share: Share of the queries with a verification fetch; None: all if only these find the fault,
                otherwise none.
            may_miss: Whether rows may be missing until the next fetch.
        """
        if verify_share is None:
            verify_share = float(name == FOUND_BY_VERIFICATION and self._options.api_version is PAGED)
        with self._sandbox({name: share}, {}, seed=seed) as (app, base_url), _empty_lake() as root:
            changes_posts = name in POST_CHANGING_FAULTS
            before = self._fetch_rows(base_url) if changes_posts else self._all_rows
            outcomes = _ingest(PARTITIONS, base_url, root, verify_share=verify_share)
            after = self._fetch_rows(base_url) if changes_posts else self._all_rows
            required = {
                partition: [row for row in rows if not may_miss and row in after[partition]]
                for partition, rows in before.items()
            }
            counts = _check_lake(outcomes, root, required=required, allowed=self._all_rows)
            counts["injected"] = app.injected[name]
            app.faults.clear()
            failed = [partition for partition, outcome in outcomes.items() if isinstance(outcome, FailedPartition)]
            repeated = _ingest(PARTITIONS if changes_posts else failed, base_url, root)
            assert not _check_lake(repeated, root, required=after, allowed=after)["failed"], repeated
        return counts

    def run_malformed_rows(self, shares: Mapping[str, float], *, seed: int) -> Counter[str]:
        """Run a trial with shares of malformed rows, by malformation."""
        with self._sandbox({}, shares, seed=seed) as (app, base_url), _empty_lake() as root:
            served = self._fetch_rows(base_url)
            outcomes = _ingest(PARTITIONS, base_url, root)
            storable = {each: [row for row in rows if is_storable(row, each[0])] for each, rows in served.items()}
            counts = _check_lake(outcomes, root, required=storable, allowed=storable)
            assert not counts["failed"], outcomes
            assert all(app.posts.altered.values()), f"a malformation did not occur: {app.posts.altered}"
            for table_name in DATE_BASES:
                bad_rows = Lake(str(root)).quarantine.rows(table_name)
                found = count_by_json(flatten_metrics(json.loads(row.raw)) for row in bad_rows)
                rows = [row for (name, _), rows in served.items() if name == table_name for row in rows]
                assert found == count_by_json(row for row in rows if not is_storable(row, table_name)), table_name
                counts["quarantined"] += found.total()
        for partition, of_partition in served.items():
            counts["injected"] += (count_by_json(of_partition) - count_by_json(self._all_rows[partition])).total()
        return counts

    def _fetch_rows(self, base_url: str) -> dict[TablePartition, list[Row]]:
        by_cursor = self._options.api_version is CURSOR
        return fetch_sandbox_rows(base_url, days=DAYS, instance_ids=INSTANCE_IDS, by_cursor=by_cursor)

    @contextmanager
    def _sandbox(
        self, faults: Mapping[str, float], malformed_rows: Mapping[str, float], *, seed: int
    ) -> Iterator[tuple[FaultySandbox, str]]:
        app = FaultySandbox(
            self._world,
            faults=faults,
            malformed_rows=malformed_rows,
            seed=seed,
            settings=SETTINGS,
            options=self._options,
        )
        with running_server(app) as base_url:
            yield app, base_url


@contextmanager
def _empty_lake() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as root:
        yield Path(root)


def _ingest(
    partitions: Collection[TablePartition], base_url: str, root: Path, *, verify_share: float = 0.0
) -> dict[TablePartition, PartitionResult]:
    """Fetch partitions by the library, without waiting before retries; return the outcome of each."""
    outcomes: dict[TablePartition, PartitionResult] = {}
    for table_name, date_basis in DATE_BASES.items():
        client = LaterClient(
            base_url=base_url,
            credentials=ClientCredentials(client_id=OPTIONS.client_id, client_secret=OPTIONS.client_secret),
            limiter=RateLimiter(requests=1_000_000),
            api_version=None,
            verification_rates=dict.fromkeys((PAGED, CURSOR), verify_share),
            timeout_seconds=TIMEOUT_SECONDS,
            sleep=lambda _: asyncio.sleep(0),
        )
        of_table = [partition for name, partition in partitions if name == table_name]
        table = RawTable(table_name, DateBasis(date_basis))
        results = run_ingest(of_table, table=table, service=Service(), root=root, client=client)
        for by_partition in (results.written, results.failed):
            outcomes |= {(table_name, partition): result for partition, result in by_partition.items()}
    return outcomes


def _check_lake(
    outcomes: Mapping[TablePartition, PartitionResult],
    root: Path,
    *,
    required: Mapping[TablePartition, list[Row]],
    allowed: Mapping[TablePartition, list[Row]],
) -> Counter[str]:
    """Compare the written partitions of a lake that was empty before; failed ones must not exist. Count both."""
    counts = Counter[str]()
    for partition, outcome in outcomes.items():
        has_failed, rows = isinstance(outcome, FailedPartition), read_partition(root, partition)
        counts["failed" if has_failed else "written"] += 1
        assert (rows is None) == has_failed, outcome
        wrong = compare_rows(rows or [], required=required[partition], allowed=allowed[partition])
        assert has_failed or not wrong, f"{partition}: {wrong}"
    return counts
