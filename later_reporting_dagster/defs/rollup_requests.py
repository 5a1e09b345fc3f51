"""What the sensor of rollups requests, and when it looks at the lake.

All of it is pure functions of the sensor's cursor, of Dagster's runs and events, and of what is outdated in the lake.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import msgspec

from later_reporting_dagster.lake.tables import COVERAGE_TABLE, INSTANCES_TABLE
from later_reporting_dagster.quality.outdated import Outdated
from later_reporting_dagster.report.report_data import REPORT
from later_reporting_dagster.rollups.rollup_tables import CADENCES, SINGLE_TABLES

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
# Between two looks at the lake, if no event is a reason for one: files may be lost, and others may write to it.
LOOK_EVERY = HOUR
# After the first request of a table that did not make it, and after the others.
SECONDS_BEFORE_NEXT = (5 * MINUTE, HOUR)
MAX_ATTEMPTS_A_DAY = 3
# Tables that list what is in the lake. No file says that they are outdated: they follow the others.
LISTS = (INSTANCES_TABLE, COVERAGE_TABLE)
_SINGLE_NAMES = {table.name for table in SINGLE_TABLES}


class Attempts(msgspec.Struct, frozen=True):
    """The requests of a table of the last 24 hours.

    Attributes:
        made: a digest of what is to be made, and from what. From something else, it is another request.
        at: the time of each request, as a timestamp.
    """

    made: str
    at: tuple[float, ...] = ()

    def next_at(self, now: float) -> float:
        """Return from when on the same may be requested again, as a timestamp."""
        recent = [at for at in self.at if at > now - DAY]
        if not recent:
            return 0.0
        if len(recent) >= MAX_ATTEMPTS_A_DAY:
            return recent[0] + DAY
        return recent[-1] + SECONDS_BEFORE_NEXT[len(recent) - 1]


class Seen(msgspec.Struct, frozen=True):
    """The cursor of the sensor.

    Attributes:
        event: the newest event of a table that is fetched, at the last look at the lake.
        looked: when that was, as a timestamp.
        waits_since: since when runs are waited for, as a timestamp; 0 if none are. The lake is looked at after them.
        lists_follow: whether tables have changed that the lists have to follow.
        attempts: what was requested and is still outdated, by table.
    """

    event: int = 0
    looked: float = 0.0
    waits_since: float = 0.0
    lists_follow: bool = False
    attempts: Mapping[str, Attempts] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Dagster:
    """What Dagster knows at a tick.

    Attributes:
        in_progress: the tables of this component, fetched and derived, that runs make, or will when they start.
        event: the newest event of a table that is fetched.
        now: the current time, as a timestamp.
        due: when the newest day was, or will be, due today.
        patience: for how many seconds runs in progress are waited for.
    """

    in_progress: Collection[str]
    event: int
    now: float
    due: float
    patience: float

    def is_due_since(self, seen: Seen) -> bool:
        """Return whether the due hour has come since the last look."""
        return seen.looked < self.due <= self.now


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """The tick is skipped."""

    reason: str
    seen: Seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """What is requested after a look at the lake: the tables of each run."""

    runs: Sequence[Sequence[str]]
    reason: str
    seen: Seen


def wait(seen: Seen, dagster: Dagster) -> Wait | None:
    """Return why the lake is not looked at now; None if it is."""
    if dagster.in_progress:
        since = seen.waits_since or dagster.now
        if dagster.now < since + dagster.patience:
            names = ", ".join(sorted(dagster.in_progress))
            return Wait(reason=f"Waits for runs of {names}", seen=msgspec.structs.replace(seen, waits_since=since))
        return None
    again = [attempts.next_at(seen.looked) for attempts in seen.attempts.values()]
    if (
        dagster.event != seen.event
        or seen.waits_since
        or dagster.is_due_since(seen)
        or dagster.now >= min([seen.looked + LOOK_EVERY, *again])
    ):
        return None
    minutes = int((dagster.now - seen.looked) / MINUTE)
    return Wait(reason=f"Nothing was fetched since the lake was looked at, {minutes} minutes ago", seen=seen)


def choose(seen: Seen, files: Sequence[Outdated], dagster: Dagster, *, defined: Collection[str]) -> Requests:
    """Return what to request of what is outdated.

    Days, weeks and months are a run each. What is made of the whole lake comes after them, in one run. If the runs in
    progress have lasted too long, everything that they do not make is requested at once.

    Args:
        defined: the tables that the sensor may request.
    """
    outdated = _by_table(files)
    attempts = {name: _attempts_of(seen, name, of_table) for name, of_table in outdated.items()}
    waiting = {name for name, each in attempts.items() if each.next_at(dagster.now) > dagster.now}
    ready = [name for name in outdated if name not in waiting and name not in dagster.in_progress]
    failed_before = {name for name in ready if attempts[name].at}
    runs = [*period_runs(ready, failed_before)]
    has_fetched, is_late = dagster.event != seen.event, bool(dagster.in_progress)
    lists_follow = seen.lists_follow or (has_fetched and bool(runs))
    if is_late or not runs:
        runs += other_runs(
            ready,
            failed_before,
            with_lists=lists_follow or dagster.is_due_since(seen),
            may_join={*defined} - {*dagster.in_progress},
        )
        lists_follow = False
    requested = {name for run in runs for name in run}
    after = Seen(
        event=dagster.event,
        looked=dagster.now,
        # Also for what is requested now: it may have ended before the next tick.
        waits_since=dagster.now if is_late or requested else 0.0,
        lists_follow=lists_follow,
        attempts={
            name: msgspec.structs.replace(each, at=(*each.at, dagster.now)[-MAX_ATTEMPTS_A_DAY:])
            if name in requested
            else each
            for name, each in attempts.items()
            if name in requested or each.at
        },
    )
    held_back = (
        f"outdated, but requested again later: {', '.join(sorted(waiting))}" if waiting else "nothing is outdated"
    )
    return Requests(runs=runs, reason=f"Looked at the lake: {held_back}", seen=after)


def _by_table(files: Iterable[Outdated]) -> dict[str, list[Outdated]]:
    found: dict[str, list[Outdated]] = {}
    for file in files:
        found.setdefault(file.table, []).append(file)
    return found


def _attempts_of(seen: Seen, name: str, files: Sequence[Outdated]) -> Attempts:
    lines = sorted(f"{file.first_day} {file.inputs}" for file in files)
    made = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    known = seen.attempts.get(name)
    return known if known and known.made == made else Attempts(made)


def period_runs(ready: Sequence[str], failed_before: Collection[str] = ()) -> Iterator[list[str]]:
    """Yield the runs of tables by day, week and month: one for each kind of partition.

    What has failed before is a run of its own, so that a process that is killed takes no other table with it.
    """
    for _, group in groupby([name for name in CADENCES if name in ready], key=CADENCES.__getitem__):
        of_kind = [*group]
        if together := [name for name in of_kind if name not in failed_before]:
            yield together
        yield from ([name] for name in of_kind if name in failed_before)


def other_runs(
    names: Sequence[str],
    failed_before: Collection[str] = (),
    *,
    with_lists: bool = False,
    may_join: Collection[str] = (),
) -> Iterator[list[str]]:
    """Yield the run of windows, lists and report, and runs of those that have failed before, step by step.

    Args:
        names: what is outdated; tables by day, week and month are left out.
        with_lists: whether the lists are due.
        may_join: what may be made besides `names`.
    """
    ready = [name for name in names if name not in CADENCES]
    together = [name for name in ready if name not in failed_before]
    if together or with_lists:
        # The report shows the others, and is made after them.
        joined = [*LISTS, *([REPORT] if REPORT not in failed_before else [])]
        if of_run := [*dict.fromkeys([*together, *(name for name in joined if name in may_join)])]:
            yield of_run
    # The tables over windows are one step.
    if windows := [name for name in ready if name in failed_before and name in _SINGLE_NAMES]:
        yield windows
    if REPORT in ready and REPORT in failed_before:
        yield [REPORT]
