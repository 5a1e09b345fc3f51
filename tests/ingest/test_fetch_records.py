"""What each run records of its fetches, and that a response never replaces that of a later request."""

import asyncio
import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from later_reporting_dagster.ingest.decide import Reason
from later_reporting_dagster.ingest.fetch_days import DayFetch, FetchedDay, fetch_days
from later_reporting_dagster.ingest.slice_writer import SliceWriter
from later_reporting_dagster.lake import Lake, Partition, open_storage, partition_path
from later_reporting_dagster.lake.coverage import FileRecord, read_records, record_files
from later_reporting_dagster.lake.file_metadata import FileMetadata
from later_reporting_dagster.lake.open_storage import _LocalStorage
from tests.conftest import DAYS, INSTANCE_IDS, Service, Truth, files, parameters, problem
from tests.ingest.conftest import DAILY, PARTITIONS, PUBLISHED, IngestResults, client_of, run_ingest, with_impressions

FAILING = INSTANCE_IDS[2]


def run(service: Service, lake: Lake, **fetch: Any) -> list[FetchedDay]:
    async def collect() -> list[FetchedDay]:
        days = fetch_days(DayFetch(table=DAILY, days=DAYS, **fetch), client=client_of(service), lake=lake)
        return [day async for day in days]

    return asyncio.run(collect())


def records_of(lake: Lake, run_id: str) -> dict[Partition, FileRecord]:
    records = read_records(lake, [file for file in record_files(lake, DAILY.name) if file.run_id == run_id])
    found = {record.partition: record for record in records}
    assert len(found) == len(records)
    return found


def test_each_run_records_when_a_response_was_requested(service: Service, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    run(service, lake, run_id="first")
    before = files(tmp_path)
    run(service, lake, run_id="second")
    first, second = records_of(lake, "first"), records_of(lake, "second")
    assert first.keys() == second.keys() == set(PARTITIONS)
    assert files(tmp_path) == before
    for partition, file in lake.read_all_metadata(DAILY.name, PARTITIONS).items():
        assert isinstance(file, FileMetadata)
        assert first[partition].requested_at.isoformat(timespec="milliseconds") == file.key_values["fetched_at"]
        assert first[partition].content_hash == second[partition].content_hash == file.content_hash
        assert first[partition].requested_at < second[partition].requested_at


def test_failures_are_recorded_with_their_reason(service: Service, tmp_path: Path) -> None:
    service.override = lambda request: problem(403) if FAILING in parameters(request).get("instanceIds", []) else None
    lake = Lake(str(tmp_path))
    (day, *_) = run(service, lake, run_id="one")
    failed = {each: record for each, record in records_of(lake, "one").items() if record.error}
    assert failed.keys() == {each for each in PARTITIONS if each.instance_id == FAILING}
    assert {record.error for record in failed.values()} == {*day.failed.values()}


def test_reasons_quote_no_values_where_personal_data_are_not_stored(service: Service, tmp_path: Path) -> None:
    service.override = lambda request: (
        problem(400, "ANL_00400", "no creator 'Jane Doe'")
        if FAILING in parameters(request).get("instanceIds", [])
        else None
    )
    lake = Lake(str(tmp_path))
    for run_id, is_quoted in (("stored", True), ("not stored", False)):
        run(service, lake, run_id=run_id, personal_data=is_quoted)
        errors = [record.error for record in records_of(lake, run_id).values() if record.error]
        assert len(errors) == len(DAYS)
        assert {"Jane" in error for error in errors} == {is_quoted}
        assert all("HTTP 400" in error for error in errors)


def test_records_are_saved_while_a_run_goes_on(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, seen = Lake(str(tmp_path)), list[int]()
    write = SliceWriter._write_batch

    def count(self: SliceWriter, *arguments: Any, **options: Any) -> Any:
        seen.append(len(read_records(lake, record_files(lake, DAILY.name))))
        return write(self, *arguments, **options)

    monkeypatch.setattr(SliceWriter, "_write_batch", count)
    run(service, lake)
    assert 0 < max(seen) < len(PARTITIONS)


# An older response never replaces a newer one


def interrupted_by(other: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Call `other` once, when the next run has received a response, and before it writes."""
    write = SliceWriter._write_batch

    def interrupted(self: SliceWriter, *arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(SliceWriter, "_write_batch", write)
        other()
        return write(self, *arguments, **options)

    monkeypatch.setattr(SliceWriter, "_write_batch", interrupted)


def ingest_one_query(service: Service, root: Path) -> IngestResults:
    return run_ingest(PARTITIONS[:4], table=PUBLISHED, service=service, root=root)


def test_a_response_does_not_replace_that_of_a_later_request(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest_one_query(service, tmp_path)
    newest = dict[str, tuple[bytes, int]]()

    def restate() -> None:
        service.transform = with_impressions(7)
        assert ingest_one_query(service, tmp_path).changes == {True}
        newest.update(files(tmp_path))

    interrupted_by(restate, monkeypatch)
    service.transform = with_impressions(5)
    older = ingest_one_query(service, tmp_path)
    assert (older.failed, older.changes) == ({}, {False})
    assert files(tmp_path) == newest
    progress = older.progress
    for written in older.written.values():
        progress.add(written)
    assert (progress.written, progress.newer, progress.done) == (0, 4, 4)
    assert progress.rows_by_fate["newer"] == progress.rows_by_fate["received"] - progress.rows_by_fate["others"] > 0
    assert "because 4 results were stored that were requested later" in progress.rows_text()
    progress.check_conservation()


def test_a_response_does_not_replace_a_file_that_a_later_response_confirmed(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest_one_query(service, tmp_path)
    before = files(tmp_path)

    def confirm() -> None:
        service.transform = None
        assert ingest_one_query(service, tmp_path).changes == {False}

    service.transform = with_impressions(5)
    interrupted_by(confirm, monkeypatch)
    assert ingest_one_query(service, tmp_path).changes == {False}
    assert files(tmp_path) == before


@pytest.mark.parametrize("has_bad_rows", [True, False])
def test_a_response_that_loses_to_a_newer_one_leaves_its_quarantine_alone(
    has_bad_rows: bool, service: Service, truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older one has another bad row, which it must not store, or none, so that it removes none."""
    newest = dict[str, tuple[bytes, int]]()
    of_file = {each: truth.partition("post_date", each.day, each.instance_id) for each in PARTITIONS[:4]}
    partition, (first, *_) = max(of_file.items(), key=lambda each: len(each[1]))

    def bad_rows(value: int) -> None:
        service.transform = with_impressions(value, lambda request, row: row["postId"] == first["post_id"])

    def restate() -> None:
        bad_rows(10**13)
        ingest_one_query(service, tmp_path)
        newest.update(files(tmp_path))

    bad_rows(10**12)
    ingest_one_query(service, tmp_path)
    interrupted_by(restate, monkeypatch)
    if not has_bad_rows:
        service.transform = with_impressions(5)
    older = run_ingest([partition], table=PUBLISHED, service=service, root=tmp_path)
    assert (older.failed, older.changes) == ({}, {False})
    assert {path for path in newest if path.startswith("_quarantine")}
    assert files(tmp_path) == newest


def test_a_clock_that_was_wrong_once_freezes_no_file(service: Service, tmp_path: Path) -> None:
    future = datetime.now(UTC) + timedelta(days=400)
    client = client_of(service, clock=future.timestamp)
    run_ingest(PARTITIONS[:4], table=PUBLISHED, service=service, root=tmp_path, client=client)
    service.transform = with_impressions(5)
    assert ingest_one_query(service, tmp_path).changes == {True}


def test_a_file_that_is_replaced_just_before_the_rename_is_compared_again(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest_one_query(service, tmp_path)
    locked, one = open_storage._locked, Partition(DAYS[0], INSTANCE_IDS[0])

    def replaced_after_it_was_read(directory: Path) -> AbstractContextManager[None]:
        # The rename is next: between the comparison and the rename, no other writer of this machine gets in.
        monkeypatch.setattr(open_storage, "_locked", locked)
        service.transform = with_impressions(7)
        assert ingest_one_query(service, tmp_path).changes == {True}
        return locked(directory)

    service.transform = with_impressions(5)
    interrupted_by(lambda: monkeypatch.setattr(open_storage, "_locked", replaced_after_it_was_read), monkeypatch)
    older = run_ingest([one], table=PUBLISHED, service=service, root=tmp_path)
    assert older.changes == {False}
    stored = Lake(str(tmp_path)).read_table(PUBLISHED.name, one, schema=older.written[one].rows.schema)
    assert stored is not None
    assert {*stored["impressions"].to_pylist()} == {7}


def test_a_file_that_other_runs_keep_replacing_fails_alone(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest_one_query(service, tmp_path)
    version, one, count = _LocalStorage._exact_version, Partition(DAYS[0], INSTANCE_IDS[0]), itertools.count()

    def always_another(self: _LocalStorage, path: str) -> Any:
        found = version(self, path)
        if path == partition_path(PUBLISHED.name, one) and found is not None:
            return found._replace(identity=f"{next(count)}")
        return found

    monkeypatch.setattr(_LocalStorage, "_exact_version", always_another)
    service.transform = with_impressions(5)
    result = ingest_one_query(service, tmp_path)
    assert result.errors() == {one: Reason.LAKE}
    assert "was replaced by another writer" in result.failed[one].reason
