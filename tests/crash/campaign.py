"""Kills writers of a lake with SIGKILL at random moments, again and again, and looks at all of it after each kill.

Two kinds of writer: the ingest library over a real service, and `later-reporting backfill`. What they write is restated
before each, so that every partition has an old version and a new one. After a kill a partition must be one of the
versions that there ever were, whole, by the hash it states, no older than it was seen before, and not absent once it
was present. The next run, undisturbed, must bring all of them to the newest version, and the one after it must leave
nothing behind of those who died.
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
from tests.crash import backfills, writes
from tests.crash.landings import BOX, DAYS, PUBLISHED, SOURCES, VERSIONS, RestatedService, restated_service
from tests.crash.nursery import Child, nursery

Cell = tuple[str, Partition]


@dataclass(slots=True)
class Tally:
    """What a campaign came to: how many kills, how many partitions were read after them, and what was wrong."""

    kills: int = 0
    looked_at: int = 0
    damaged: list[str] = field(default_factory=list)


def campaign(kind: "Landings", *, kills: int, seed: int) -> Tally:
    """Kills that many processes of a kind, then lets one finish."""
    tally, draws, seen = Tally(), random.Random(seed), dict[Cell, int]()
    version = 0
    child, started = kind.start(version), time.monotonic()
    child.succeed()
    life = time.monotonic() - started
    _look(kind, tally, seen, until=version)
    while tally.kills < kills:
        version += 1
        child = kind.start(version)
        moment = draws.uniform(0, life)
        time.sleep(moment)
        if child.kill():
            tally.kills += 1
        else:
            life = (life + moment) / 2  # it lived for less than that: the first of them had more to do
        _look(kind, tally, seen, until=version)
    version += 1
    tally.damaged += kind.repair(version)
    _look(kind, tally, seen, until=version)
    tally.damaged += [f"{cell} was not repaired" for cell in kind.cells if seen.get(cell) != version]
    writes.age_stages(kind.root)
    kind.start(version + 1).succeed()
    tally.damaged += [f"{stage} was left behind" for stage in writes.stages(kind.root)]
    return tally


def _look(kind: "Landings", tally: Tally, seen: dict[Cell, int], *, until: int) -> None:
    """Reads all partitions as the lake's readers do, and notes what is there."""
    lake = Lake(str(kind.root))
    present = {(asset, each) for asset in {asset for asset, _ in kind.cells} for each in lake.partitions(asset)}
    tally.damaged += [f"{cell} is absent" for cell in seen.keys() - present]
    tally.damaged += [f"{cell} is not one of them" for cell in present - set(kind.cells)]
    for cell in present:
        tally.looked_at += 1
        facts, table = lake.facts(*cell), lake.read(cell[0], [cell[1]], schema=POSTS_SCHEMA)
        if facts is None or facts.content_hash != content_hash_of(table):
            tally.damaged.append(f"{cell} does not hold what it states")
        found = kind.version_of(cell, until=until)
        if found is None or found < seen.get(cell, 0):
            tally.damaged.append(f"{cell} holds none of its versions, or an older one: {found}")
        else:
            seen[cell] = found


class Landings:
    """The ingest library over a service that holds another world each time."""

    name = "ingest"
    cells: list[Cell] = [(source.asset, partition) for source in SOURCES for partition in BOX]

    def __init__(self, root: Path, start: Callable[[], Child], service: RestatedService) -> None:
        self.root = root
        self._service = service
        self._start = start

    def start(self, version: int) -> Child:
        """After the service has been restated."""
        self._service.restate(version)
        return self._start()

    def version_of(self, cell: Cell, *, until: int) -> int | None:
        """By comparison with what the service answered to a reader of its own."""
        asset, partition = cell
        rows = stored_rows(self.root, asset, partition.day, partition.instance_id or "")
        versions = range(until, max(-1, until - VERSIONS), -1)
        return next((each for each in versions if self._service.answers[each % VERSIONS][cell] == rows), None)

    def repair(self, version: int) -> list[str]:
        """The same process, in peace."""
        self.start(version).succeed()
        return []


class Backfills(Landings):
    """The same by `later-reporting backfill`, of one source, because Dagster's events take their time."""

    name = "backfill"
    cells: list[Cell] = [(PUBLISHED.asset, partition) for partition in BOX]

    def __init__(
        self, root: Path, start: Callable[[], Child], service: RestatedService, *, environment: dict[str, str]
    ) -> None:
        super().__init__(root, start, service)
        self._environment = environment

    def repair(self, version: int) -> list[str]:
        """The very command in a process of its own, after which Dagster must know of each day."""
        self._service.restate(version)
        process = backfills.command(*backfills.arguments(PUBLISHED.asset), environment=self._environment)
        said, _ = process.communicate()
        with dg.DagsterInstance.from_config(self._environment["DAGSTER_HOME"]) as instance:
            known = instance.get_materialized_partitions(dg.AssetKey(["later", PUBLISHED.asset]))
        problems = [f"the run after the kills failed: {said}"] if process.returncode else []
        return problems if len(known) == len(DAYS) else [*problems, f"Dagster knows of {sorted(known)} only"]


@contextmanager
def kinds(directory: Path) -> Iterator[dict[str, Landings]]:
    """The kinds of writer by name, each with an empty lake in the directory."""
    with ExitStack() as open_while_used:
        service = open_while_used.enter_context(restated_service())
        environment = backfills.user_environment(
            directory, base_url=service.base_url, lake_root=str(directory / "backfill")
        )

        def start(kind: str, module: str, **of_children: dict[str, str]) -> Callable[..., Child]:
            return open_while_used.enter_context(
                nursery(f"tests.crash.{module}", log=directory / f"{kind}.log", **of_children)
            ).start

        land = start("ingest", "landings")
        backfill = start("backfill", "backfills", environment=environment)
        landed = directory / "ingest"
        found = [
            Landings(landed, lambda: land("land", root=str(landed), base_url=service.base_url), service),
            Backfills(
                directory / "backfill",
                lambda: backfill("backfill", asset=PUBLISHED.asset),
                service,
                environment=environment,
            ),
        ]
        yield {kind.name: kind for kind in found}


def shares(kills: int) -> dict[str, int]:
    """How many kills each kind gets: the command, which lives long, one in ten."""
    return {"ingest": kills - kills // 10, "backfill": kills // 10}
