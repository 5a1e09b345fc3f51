"""Store the materializations of a run in batches, if the event log storage of the Dagster instance can store a batch.

`context.log_event` stores each event on its own. On Postgres, that takes several connections and transactions.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock, get_ident
from typing import Protocol

import dagster as dg
from dagster import AssetExecutionContext

from later_reporting_dagster.contract.redaction import redact

MAX_BATCH_EVENTS = 100
MAX_BATCH_SECONDS = 5.0


class EventStorage(Protocol):
    """The part of Dagster's `EventLogStorage` that is used here. All event log storages implement it."""

    def store_event(self, event: dg.EventLogEntry) -> None:
        """Store an event."""

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store materializations of one asset in their order."""


class EventBatch:
    """Materializations of a run that are logged, but not stored yet."""

    def __init__(self, context: AssetExecutionContext, *, now: Callable[[], float] = time.monotonic) -> None:
        self._context = context
        self._storage: EventStorage = context.instance.event_log_storage
        self._now = now
        # By asset, because the storage updates the newest materialization of one asset per batch.
        self._pending: dict[dg.AssetKey, list[dg.EventLogEntry]] = {}
        self._flushed_at = now()

    def add(self, event: dg.AssetMaterialization) -> None:
        """Log a materialization; store all if they are many, or if the last were stored some seconds ago.

        Only a new event is a reason to store the ones before it. Otherwise they wait for the end of the run.
        """
        with _held_back(self._storage, self._pending.setdefault(event.asset_key, [])):
            self._context.log_event(event)
        is_full = sum(map(len, self._pending.values())) >= MAX_BATCH_EVENTS
        if is_full or self._now() - self._flushed_at >= MAX_BATCH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Store all materializations that were added, in their order by asset."""
        for asset_key, entries in [*self._pending.items()]:
            self._store(entries)
            # Only now: if an interrupt ends the lines above early, the end of the run stores the events. A partition
            # that is materialized twice is better than a written one without materialization.
            del self._pending[asset_key]
        self._flushed_at = self._now()

    def _store(self, entries: list[dg.EventLogEntry]) -> None:
        """Store entries as one batch; if that fails, one by one, as Dagster does with its own batches."""
        try:
            if len(entries) > 1:
                self._storage.store_event_batch(entries)
                return
        except Exception as error:
            # Short, because the error of a database has the statement with all events.
            reason = redact(f"{type(error).__name__}: {error}")
            self._context.log.warning(f"Storing {len(entries)} events one by one, because their batch failed: {reason}")
        while entries:
            self._storage.store_event(entries[0])
            del entries[0]


_current: ContextVar[EventBatch | None] = ContextVar("current_event_batch", default=None)


@contextmanager
def batched_events(context: AssetExecutionContext) -> Iterator[None]:
    """Let `log_event` store the materializations of a run in batches, the last one when the block ends.

    The last batch is also stored when the block raises an error, or is interrupted because the run is canceled. A
    process that is killed loses at most the last `MAX_BATCH_EVENTS` materializations. Their files are written, and the
    next run of these partitions materializes them, because a run materializes unchanged partitions, too.

    If the storage has no batches, as that of SQLite and MySQL, each event is stored when it is logged.
    """
    if not stores_batches(context.instance.event_log_storage):
        yield
        return
    batch = EventBatch(context)
    token = _current.set(batch)
    try:
        yield
    finally:
        _current.reset(token)
        batch.flush()


def log_event(context: AssetExecutionContext, event: dg.AssetMaterialization | dg.AssetCheckEvaluation) -> None:
    """Log an event as `context.log_event` does; within `batched_events`, store materializations later.

    A check result is stored at once, after all materializations before it: Dagster has no batches of check results.
    """
    batch = _current.get()
    if batch and isinstance(event, dg.AssetMaterialization):
        batch.add(event)
        return
    if batch:
        batch.flush()
    context.log_event(event)


def stores_batches(storage: EventStorage) -> bool:
    """Return whether a storage stores a batch faster than its events one by one, as Dagster's base class stores it."""
    defining = next((each for each in type(storage).__mro__ if "store_event_batch" in vars(each)), None)
    return defining is not None and defining.__name__ != "EventLogStorage"


# Held while `store_event` is replaced, so that two threads do not replace it at once.
_replacing = Lock()


@contextmanager
def _held_back(storage: EventStorage, entries: list[dg.EventLogEntry]) -> Iterator[None]:
    """Append the materializations that this thread stores while the block runs to `entries`, instead of storing them.

    Dagster cannot log several events at once: its setting for batches, DAGSTER_EVENT_BATCH_SIZE, does not apply to
    `context.log_event`. So `context.log_event` does all that it does but the last step. The entries are those that it
    would store, the lines of the console are written, and the step's result has the event. Should a version of Dagster
    store events in another way, nothing is held back, and each event is stored when it is logged.
    """
    thread = get_ident()
    with _replacing:
        store_event = storage.store_event

        def hold_back(event: dg.EventLogEntry) -> None:
            # Other events are stored, even if an interrupt prevents the last line below: they are the run's status.
            if event.dagster_event_type is dg.DagsterEventType.ASSET_MATERIALIZATION and get_ident() == thread:
                entries.append(event)
            else:
                store_event(event)

        # In the object, not in its class, so that no other storage is affected.
        vars(storage)["store_event"] = hold_back
        try:
            yield
        finally:
            del vars(storage)["store_event"]
