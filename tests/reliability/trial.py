"""One trial: the ingest library against a real service that has a fault, and then the lake against the truth."""

import asyncio
import json
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import date
from pathlib import Path

from starlette.types import Receive, Scope, Send

from later_reporting_dagster.client import ClientCredentials, LaterClient, RateLimiter
from later_reporting_dagster.contract import CURSOR, PAGED, DateBasis, Revision
from later_reporting_dagster.ingest.ingest import ingest
from later_reporting_dagster.ingest.partition_writer import Failed, Outcome
from later_reporting_dagster.ingest.raw_tables import Source
from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.sandbox import (
    FAULTS_HEADER,
    FaultSettings,
    FaultySandbox,
    SandboxOptions,
    World,
    running_sandbox,
)
from tests.conftest import INSTANCE_IDS, UNHURRIED
from tests.reliability.truth import (
    DATE_BASES,
    Cell,
    Differences,
    Row,
    as_text,
    can_be_true,
    differences,
    flat,
    in_the_lake,
    rows_of_the_sandbox,
)

# With the last day of a February that has 29.
DAYS = [date(2024, 2, 27), date(2024, 2, 28), date(2024, 2, 29), date(2024, 3, 1), date(2024, 3, 2)]
CELLS: list[Cell] = [(asset, Partition(day, name)) for asset in DATE_BASES for day in DAYS for name in INSTANCE_IDS]
WORLD_CHANGES = ("post-inserted", "post-removed", "post-exchanged")
TOLD_BY_A_SECOND_LOOK = "post-exchanged"
"""The fault that no count of numbered pages can show: a post vanishes and another arrives between two of them."""

TIMEOUT_SECONDS = 1.0
# A window so short that waiting one out after a 429 takes no time.
OPTIONS = SandboxOptions(requests_per_window=UNHURRIED.requests_per_window, window_seconds=0.05)
SETTINGS = FaultSettings(
    retry_after_seconds=0, slow_seconds=2 * TIMEOUT_SECONDS, huge_bytes=36 * 2**20, changes=4
)  # a client reads 32 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What came of one trial, or of several.

    Attributes:
        injected: faults, or hostile rows served.
        landed: partitions that landed while there were faults.
        refused: partitions that failed, and of which the lake then had nothing.
        quarantined: rows that cannot be true, set aside with what they were.
        found: what was wrong with the partitions that landed.
        found_after: the same after one more fetch without faults: of what had failed, or of all if posts come and go.
        problems: what else was wrong, in words.
    """

    injected: int = 0
    landed: int = 0
    refused: int = 0
    quarantined: int = 0
    found: Differences = Differences()
    found_after: Differences = Differences()
    problems: tuple[str, ...] = ()

    def __add__(self, other: "Trial") -> "Trial":
        return Trial(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(Trial)})


class _Calmed:
    """The sandbox with faults, without them once it is calm."""

    def __init__(self, app: FaultySandbox) -> None:
        self._app = app
        self.is_calm = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.is_calm:
            scope = {**scope, "headers": [*scope["headers"], (FAULTS_HEADER.lower().encode(), b"off")]}
        await self._app(scope, receive, send)


class Trials:
    """Trials over the same world, of which each service holds the same posts unless a fault changes them.

    Args:
        posts_per_day: of each instance, on average.
        revision: how the services page, at least in the beginning. Clients have to find out.
    """

    def __init__(self, *, posts_per_day: int, revision: Revision = PAGED) -> None:
        self._options = replace(OPTIONS, revision=revision)
        self._world = World(
            first_day=date(2024, 2, 1),
            last_day=date(2024, 3, 10),
            seed=25,
            instances=1,
            posts_per_day=posts_per_day,
            further_instances=INSTANCE_IDS[1:],
        )
        with self._service({}, {}, seed=0) as (_, _, base_url):
            self._ever = self._truth(base_url)

    def of_fault(self, name: str, *, share: float, seed: int, second_looks: float | None = None) -> Trial:
        """What a fault does that befalls so many of the answers.

        `second_looks` is the share of walks that are looked at twice: of all with the fault that needs it, else none.
        """
        if second_looks is None:
            second_looks = float(name == TOLD_BY_A_SECOND_LOOK and self._options.revision is PAGED)
        with self._service({name: share}, {}, seed=seed) as (app, calmed, base_url):
            changes = name in WORLD_CHANGES
            before = self._truth(base_url) if changes else self._ever
            with _lake() as root:
                outcomes = _land(CELLS, base_url, root, second_looks=second_looks)
                after = self._truth(base_url) if changes else self._ever
                due = {cell: [row for row in rows if row in after[cell]] for cell, rows in before.items()}
                trial = _compared(outcomes, root, due=due, ever=self._ever)
                refused = [cell for cell, outcome in outcomes.items() if isinstance(outcome, Failed)]
                calmed.is_calm = True
                again = _land(CELLS if changes else refused, base_url, root)
                once_more = _compared(again, root, due=after, ever=after)
        return trial + Trial(
            injected=app.injected[name],
            found_after=once_more.found,
            problems=once_more.problems
            + tuple(f"without faults: {_told(each)}" for each in again.values() if isinstance(each, Failed)),
        )

    def of_hostile_rows(self, shares: Mapping[str, float], *, seed: int) -> Trial:
        """What becomes of so many rows of some kinds, and of those beside them."""
        with self._service({}, shares, seed=seed) as (app, _, base_url), _lake() as root:
            truth = self._truth(base_url)
            outcomes = _land(CELLS, base_url, root)
            good = {cell: [row for row in rows if can_be_true(row)] for cell, rows in truth.items()}
            trial = _compared(outcomes, root, due=good, ever=good)
            problems = [f"no row is {name}" for name, keys in app.altered.items() if not keys]
            problems += [_told(each) for each in outcomes.values() if isinstance(each, Failed)]
            quarantined = 0
            for asset in DATE_BASES:
                aside = as_text(flat(json.loads(row.raw)) for row in Lake(str(root)).quarantine.rows(asset))
                rows = [row for (of, _), rows in truth.items() if of == asset for row in rows]
                bad = as_text(row for row in rows if not can_be_true(row))
                quarantined += aside.total()
                if aside != bad:
                    problems.append(f"{asset}: {aside.total()} rows in quarantine, {bad.total()} that cannot be true")
        altered = sum((as_text(rows) - as_text(self._ever[cell])).total() for cell, rows in truth.items())
        return trial + Trial(injected=altered, quarantined=quarantined, problems=tuple(problems))

    def _truth(self, base_url: str) -> dict[Cell, list[Row]]:
        by_cursor = self._options.revision is CURSOR
        return rows_of_the_sandbox(base_url, days=DAYS, instance_ids=INSTANCE_IDS, by_cursor=by_cursor)

    @contextmanager
    def _service(
        self, faults: Mapping[str, float], hostile: Mapping[str, float], *, seed: int
    ) -> Iterator[tuple[FaultySandbox, _Calmed, str]]:
        app = FaultySandbox(
            self._world, faults=faults, hostile=hostile, seed=seed, settings=SETTINGS, options=self._options
        )
        calmed = _Calmed(app)
        with running_sandbox(calmed) as base_url:
            yield app, calmed, base_url


@contextmanager
def _lake() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as root:
        yield Path(root)


def _land(cells: Collection[Cell], base_url: str, root: Path, *, second_looks: float = 0.0) -> dict[Cell, Outcome]:
    """Lands cells by the library, whose retries do not wait; the outcome of each."""
    outcomes: dict[Cell, Outcome] = {}

    async def run() -> None:
        async with LaterClient(
            base_url=base_url,
            credentials=ClientCredentials(client_id=OPTIONS.client_id, client_secret=OPTIONS.client_secret),
            limiter=RateLimiter(requests=1_000_000),
            revision=None,
            second_looks=dict.fromkeys((PAGED, CURSOR), second_looks),
            timeout_seconds=TIMEOUT_SECONDS,
            sleep=lambda _: asyncio.sleep(0),
        ) as client:
            for asset in DATE_BASES:
                await ingest(
                    [partition for of, partition in cells if of == asset],
                    source=Source(asset, DateBasis(DATE_BASES[asset])),
                    client=client,
                    lake=Lake(str(root)),
                    deliver=lambda outcome, asset=asset: outcomes.update({(asset, outcome.partition): outcome}),
                )

    asyncio.run(run())
    return outcomes


def _compared(
    outcomes: Mapping[Cell, Outcome], root: Path, *, due: Mapping[Cell, list[Row]], ever: Mapping[Cell, list[Row]]
) -> Trial:
    """What landed, against the truth; what failed must not be in the lake, which was empty."""
    found, problems, refused = Differences(), [], 0
    for cell, outcome in outcomes.items():
        rows = in_the_lake(root, cell)
        if isinstance(outcome, Failed):
            refused += 1
            if rows is not None:
                problems.append(f"{cell} failed and yet was written")
        elif rows is None:
            problems.append(f"{cell} landed and yet is not there")
        else:
            found += differences(rows, due=due[cell], ever=ever[cell])
    return Trial(landed=len(outcomes) - refused, refused=refused, found=found, problems=tuple(problems))


def _told(failed: Failed) -> str:
    return f"{failed.partition} failed: {type(failed.error).__name__} {failed.error}"
