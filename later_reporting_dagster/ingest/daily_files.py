"""The files of a raw table of days: each is the slice of a day and instance, or of a day with the rows of all."""

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from datetime import datetime

import msgspec
import pyarrow as pa

from later_reporting_dagster.client import LaterError, QueryRejected
from later_reporting_dagster.contract import BadRow, PerformanceQuery
from later_reporting_dagster.contract.personal_data import reason_without_values
from later_reporting_dagster.ingest.decide import (
    AskAgain,
    Decision,
    Newer,
    Policy,
    Reason,
    Received,
    Reject,
    Stored,
    Write,
    decide,
    replaces_quarantine,
)
from later_reporting_dagster.ingest.progress import FailedSlice, SliceOutcome, SliceResult, WrittenSlice, outcome_of
from later_reporting_dagster.ingest.query_plan import query_text
from later_reporting_dagster.lake import FileDamaged, Lake, LakeUnavailable, WriteResult
from later_reporting_dagster.lake.coverage import FileRecord, RunRecords
from later_reporting_dagster.lake.file_metadata import FETCHED_AT, METRICS, QUERIES, FileMetadata, instant_text
from later_reporting_dagster.lake.lake import MAX_ATTEMPTS, StoredFile, with_first_fetch
from later_reporting_dagster.lake.parquet_file import check_columns, read_stored_rows, to_parquet
from later_reporting_dagster.lake.paths import Partition
from later_reporting_dagster.lake.storage import ReplacedMeanwhile
from later_reporting_dagster.lake.tables import RawTable

# By file, ids of posts that it lacks.
AbsentPosts = Mapping[Partition, Collection[int]]


class DailyFiles:
    """Reads and replaces the files of a raw table, and their rows in quarantine, which it lists first.

    `records` gets the result of each file; whoever began them saves them at the end.

    Attributes:
        has_wrong_clock: whether a stored time cannot be true.

    Args:
        personal_data: whether personal data may be stored; a reason of a failure may quote some.
        absent: posts that files lack, although results name them; None if that is unknown, or the table has others.
    """

    def __init__(
        self,
        table: RawTable,
        lake: Lake,
        records: RunRecords,
        *,
        personal_data: bool = True,
        absent: AbsentPosts | None = None,
    ) -> None:
        self.table, self.lake, self._records, self._personal_data = table, lake, records, personal_data
        self._absent = absent
        self.has_wrong_clock = False
        # What the run writes replaces these. If the lake cannot be listed, writing reports it.
        self._quarantined: Set[str] = frozenset()
        with suppress(LakeUnavailable):
            self._quarantined = {file.path for file in lake.quarantine.files(table.name)}

    def stored_rows(self, partition: Partition, schema: pa.Schema) -> pa.Table:
        """Return the stored rows; none if there is no file, or it is damaged."""
        with suppress(FileDamaged):
            if stored := self.lake.read_table(self.table.name, partition, schema=schema):
                return stored
        return schema.empty_table()

    def store(
        self, received: Mapping[Partition, Received], query: PerformanceQuery, policy: Policy
    ) -> dict[Partition, SliceOutcome]:
        """Decide about each file, replace those that change, and record what is final.

        A file that another run replaces meanwhile is read and decided about again.
        """
        outcomes: dict[Partition, SliceOutcome] = {}
        decisions: dict[Partition, Decision] = {}
        withdrawn: dict[Partition, list[int]] = {}
        asked = _metadata_of(query)
        waiting = [*received]
        for _ in range(MAX_ATTEMPTS):
            # As late as possible, but once for all: on an object store it is a request.
            self._records.look_for_newer()
            stored = self.lake.read_files(self.table.name, waiting)
            new_files: dict[Partition, bytes] = {}
            for partition, file in stored.items():
                new, metadata, data = received[partition], file.metadata, file.data or b""
                found = self._stored(partition, file, metadata, new.rows.schema)
                self.has_wrong_clock |= any(time > policy.latest for time in found.requested_at)
                decision = decide(new, found, policy)
                if new.bad_rows:
                    decision = quarantine_first(self.lake, self._bad_rows_path(partition), decision, new, query)
                decisions[partition] = decision
                if isinstance(decision, Write):
                    key_values = with_first_fetch({FETCHED_AT: instant_text(new.requested_at), **asked}, metadata)
                    metadata = FileMetadata(decision.rows.num_rows, decision.content_hash, key_values)
                    data = to_parquet(decision.rows, content_hash=decision.content_hash, key_values=key_values)
                    new_files[partition] = data
                result = self._result(partition, metadata, data, changed=partition in new_files)
                outcomes[partition] = outcome_of(partition, decision, new, result)
                if self._absent is not None and not isinstance(decision, Newer):
                    before = _post_ids(found.rows)
                    after = _post_ids(decision.rows) if isinstance(decision, Write) else before
                    withdrawn[partition] = sorted(before.union(self._absent.get(partition, ())) - after)
            failed = self.lake.replace_files(self.table.name, new_files, stored=stored)
            for partition, error in failed.items():
                rejected, rows = Reject(Reason.LAKE, str(error)), received[partition].rows.num_rows
                outcomes[partition] = FailedSlice(slice=partition, error=rejected, rows=rows)
            waiting = [partition for partition, error in failed.items() if isinstance(error, ReplacedMeanwhile)]
            if not waiting:
                break
        for partition, decision in decisions.items() if self._quarantined else ():
            has_no_bad_rows = isinstance(outcomes[partition], WrittenSlice) and not received[partition].bad_rows
            if has_no_bad_rows and replaces_quarantine(decision):
                self._replace_bad_rows(self._bad_rows_path(partition), [], query)
        self._records.add(
            self._record(outcome, received[partition].requested_at, withdrawn.get(partition))
            for partition, outcome in outcomes.items()
            if not isinstance(outcome, AskAgain)
        )
        return outcomes

    def record_failures(self, failed: Iterable[FailedSlice], at: datetime) -> None:
        """Record files of which there is no response."""
        self._records.add(self._record(each, at) for each in failed)

    def quarantine_unassigned(self, bad_rows: Sequence[BadRow], query: PerformanceQuery) -> None:
        """Replace the bad rows of a query that belong to no file."""
        days = query.start_date, query.end_date
        path = self.lake.quarantine.path_of_query(self.table.name, query_text(query), days)
        self._replace_bad_rows(path, bad_rows, query)

    def _stored(self, partition: Partition, file: StoredFile, metadata: FileMetadata, schema: pa.Schema) -> Stored:
        rows = None
        with suppress(FileDamaged):
            if file.data is not None:
                stored = read_stored_rows(file.data)
                check_columns(stored.schema, schema)
                rows = stored
        times = metadata.fetched_at, self._records.newer_response(partition)
        return Stored(
            rows=rows,
            content_hash=metadata.content_hash,
            requested_at=[time for time in times if time],
            error=file.error,
        )

    def _result(self, partition: Partition, metadata: FileMetadata, data: bytes, *, changed: bool) -> WriteResult:
        url, key_values = self.lake.url(self.table.name, partition), {**metadata.key_values}
        return WriteResult(url, metadata.rows, len(data), metadata.content_hash, changed, key_values)

    def _bad_rows_path(self, partition: Partition) -> str:
        return self.lake.quarantine.path_of(self.table.name, partition)

    def _replace_bad_rows(self, path: str, bad_rows: Sequence[BadRow], query: PerformanceQuery) -> None:
        if bad_rows:
            self.lake.quarantine.write(path, bad_rows, query=query_text(query))
        elif path in self._quarantined:
            # If that fails, the check `quarantine_is_empty` reports it until the next fetch.
            with suppress(LakeUnavailable):
                self.lake.storage.remove(path)

    def _record(self, result: SliceResult, at: datetime, withdrawn: Sequence[int] | None = None) -> FileRecord:
        record = FileRecord(self.table.name, result.slice.day, result.slice.instance_id)
        if isinstance(result, FailedSlice):
            reason = result.reason if self._personal_data else _reason_without_values(result)
            return record._replace(failed_at=at, error=reason.encode(errors="replace").decode())
        return record._replace(requested_at=at, content_hash=result.file.content_hash, withdrawn_posts=withdrawn)


def _post_ids(rows: pa.Table | None) -> set[int]:
    return set() if rows is None else {*rows["post_id"].unique().to_pylist()}


def _reason_without_values(failed: FailedSlice) -> str:
    """Return why a slice failed, without what the server or a row says."""
    if isinstance(failed.error, LaterError):
        status = f", HTTP {failed.error.status}" if isinstance(failed.error, QueryRejected) else ""
        return f"the request failed ({type(failed.error).__name__}{status})"
    return reason_without_values(failed.reason)


def quarantine_first(
    lake: Lake, path: str, decision: Decision, received: Received, query: PerformanceQuery
) -> Decision:
    """Store the bad rows before the others replace anything, but not over those of a newer response."""
    if replaces_quarantine(decision):
        try:
            lake.quarantine.write(path, received.bad_rows, query=query_text(query))
        except LakeUnavailable as error:
            return Reject(Reason.LAKE, str(error))
    return decision


def _metadata_of(query: PerformanceQuery) -> dict[str, str]:
    return {
        QUERIES: msgspec.json.encode([query_text(query)]).decode(),
        METRICS: msgspec.json.encode([metric.api_name for metric in query.metrics]).decode(),
    }
