"""One trial: fetch from a sandbox with a fault by the ingest library, then compare the lake with the sandbox."""

import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from datetime import date
from pathlib import Path

from later_reporting_dagster.client import ClientCredentials, LaterClient, RateLimiter
from later_reporting_dagster.contract import CURSOR, PAGED, ApiVersion, DateBasis
from later_reporting_dagster.ingest.partition_writer import FailedPartition, PartitionResult
from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.lake.tables import RawTable
from later_reporting_dagster.sandbox import FaultMiddleware, FaultSettings, SandboxOptions, World, running_server
from tests.conftest import INSTANCE_IDS, NO_RATE_LIMIT, Service
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
POST_CHANGING_FAULTS = ("post-inserted", "post-removed", "post-exchanged")
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


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """Result of one trial or the sum of several.

    Attributes:
        injected: Faults injected, or malformed rows served.
        written: Partitions written while there were faults.
        failed: Partitions that failed and are not in the lake.
        quarantined: Rows in quarantine.
        found: Wrong rows in the written partitions, by kind.
        found_after: Wrong rows after one more fetch without faults: of the failed partitions, or of all if the fault
            changes posts.
        problems: Other errors, one line each.
    """

    injected: int = 0
    written: int = 0
    failed: int = 0
    quarantined: int = 0
    found: Counter[str] = field(default_factory=Counter)
    found_after: Counter[str] = field(default_factory=Counter)
    problems: tuple[str, ...] = ()

    def __add__(self, other: "TrialResult") -> "TrialResult":
        return TrialResult(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)})


def failures(name: str, result: TrialResult, *, may_miss: bool = False) -> list[str]:
    """Return a line for each error of a trial. With `may_miss`, rows may be missing until the next fetch."""
    found = [f"{name}: {problem}" for problem in result.problems]
    if not result.injected:
        found.append(f"{name}: nothing was injected")
    if result.found.keys() - ({"lost"} if may_miss else ()):
        found.append(f"{name}: {result.found}")
    if result.found_after:
        found.append(f"{name}: after one more fetch {result.found_after}")
    return found


class Trials:
    """Trials with sandboxes of the same world.

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

    def run_fault(self, name: str, *, share: float, seed: int, verify_share: float | None = None) -> TrialResult:
        """Run a trial of one fault.

        Args:
            name: Name of the fault.
            share: Share of the requests with the fault.
            seed: Selects the requests.
            verify_share: Share of the queries with a verification fetch; None: all if only these find the fault,
                otherwise none.
        """
        if verify_share is None:
            verify_share = float(name == FOUND_BY_VERIFICATION and self._options.api_version is PAGED)
        with self._sandbox({name: share}, {}, seed=seed) as (app, base_url):
            changes_posts = name in POST_CHANGING_FAULTS
            before = self._fetch_rows(base_url) if changes_posts else self._all_rows
            with _empty_lake() as root:
                outcomes = _ingest(PARTITIONS, base_url, root, verify_share=verify_share)
                after = self._fetch_rows(base_url) if changes_posts else self._all_rows
                required = {each: [row for row in rows if row in after[each]] for each, rows in before.items()}
                result = _compare(outcomes, root, required=required, allowed=self._all_rows)
                failed = [each for each, outcome in outcomes.items() if isinstance(outcome, FailedPartition)]
                app.faults.clear()
                outcomes_after = _ingest(PARTITIONS if changes_posts else failed, base_url, root)
                result_after = _compare(outcomes_after, root, required=after, allowed=after)
        failures = [each for each in outcomes_after.values() if isinstance(each, FailedPartition)]
        return result + TrialResult(
            injected=app.injected[name],
            found_after=result_after.found,
            problems=(*result_after.problems, *(f"without faults: {_describe(each)}" for each in failures)),
        )

    def run_malformed_rows(self, shares: Mapping[str, float], *, seed: int) -> TrialResult:
        """Run a trial with shares of malformed rows, by malformation."""
        with self._sandbox({}, shares, seed=seed) as (app, base_url), _empty_lake() as root:
            served = self._fetch_rows(base_url)
            outcomes = _ingest(PARTITIONS, base_url, root)
            storable = {each: [row for row in rows if is_storable(row)] for each, rows in served.items()}
            result = _compare(outcomes, root, required=storable, allowed=storable)
            problems = [f"no row is {name}" for name, keys in app.altered.items() if not keys]
            problems += [_describe(each) for each in outcomes.values() if isinstance(each, FailedPartition)]
            quarantined = 0
            for table_name in DATE_BASES:
                bad_rows = Lake(str(root)).quarantine.rows(table_name)
                found = count_by_json(flatten_metrics(json.loads(row.raw)) for row in bad_rows)
                rows = [row for (name, _), rows in served.items() if name == table_name for row in rows]
                expected = count_by_json(row for row in rows if not is_storable(row))
                quarantined += found.total()
                if found != expected:
                    problems.append(f"{table_name}: {found.total()} rows in quarantine, not {expected.total()}")
        altered = sum(
            (count_by_json(rows) - count_by_json(self._all_rows[each])).total() for each, rows in served.items()
        )
        return result + TrialResult(injected=altered, quarantined=quarantined, problems=tuple(problems))

    def _fetch_rows(self, base_url: str) -> dict[TablePartition, list[Row]]:
        by_cursor = self._options.api_version is CURSOR
        return fetch_sandbox_rows(base_url, days=DAYS, instance_ids=INSTANCE_IDS, by_cursor=by_cursor)

    @contextmanager
    def _sandbox(
        self, faults: Mapping[str, float], malformed_rows: Mapping[str, float], *, seed: int
    ) -> Iterator[tuple[FaultMiddleware, str]]:
        app = FaultMiddleware(
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


def _compare(
    outcomes: Mapping[TablePartition, PartitionResult],
    root: Path,
    *,
    required: Mapping[TablePartition, list[Row]],
    allowed: Mapping[TablePartition, list[Row]],
) -> TrialResult:
    """Compare the written partitions of a lake that was empty before; failed ones must not exist."""
    found, problems, failed = Counter[str](), [], 0
    for partition, outcome in outcomes.items():
        rows = read_partition(root, partition)
        if isinstance(outcome, FailedPartition):
            failed += 1
            if rows is not None:
                problems.append(f"{partition} failed but exists in the lake")
        elif rows is None:
            problems.append(f"{partition} was written but does not exist in the lake")
        else:
            found += compare_rows(rows, required=required[partition], allowed=allowed[partition])
    return TrialResult(written=len(outcomes) - failed, failed=failed, found=found, problems=tuple(problems))


def _describe(failed: FailedPartition) -> str:
    return f"{failed.partition} failed: {type(failed.error).__name__} {failed.error}"
