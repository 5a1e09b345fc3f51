"""Late posts: which files a lake contradicts, what makes them current or a post withdrawn, and what a look reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from later_reporting_dagster.contract import BadRow
from later_reporting_dagster.contract.days import days_between
from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, Partition
from later_reporting_dagster.lake.coverage import (
    COVERAGE_SCHEMA,
    FileRecord,
    RunRecords,
    current_files,
    newest_fetches,
    update_records,
    write_coverage,
)
from later_reporting_dagster.lake.database import LakeDatabase
from later_reporting_dagster.lake.tables import COVERAGE_TABLE, POSTS_NAMES, Table
from later_reporting_dagster.quality.late_posts import (
    LatePosts,
    describe_stale,
    judged,
    stored_late_posts,
    with_late_posts,
)

METRICS, PUBLISHED = POSTS_NAMES
START, OLD, OTHER, NEW = date(2024, 1, 1), date(2024, 1, 10), date(2024, 1, 20), date(2024, 4, 1)
A, B = "a", "b/é"
DAY = timedelta(days=1)


def at(day: date, hour: int = 6) -> datetime:
    return datetime(day.year, day.month, day.day, hour, tzinfo=UTC)


@dataclass
class LateLake:
    """A lake whose posts are written day by day. Days before `before` are old.

    Attributes:
        read: the files that the last look has read.
        unavailable: a file that a look cannot read.
    """

    lake: Lake
    before: date = NEW - timedelta(days=27)
    read: list[Partition] = field(default_factory=list)
    unavailable: Path | None = None

    def write(self, table: str, day: date, posts: Mapping[int, date], *, requested: datetime, name: str = A) -> None:
        """Write a response with posts by id, each with its publication day, unless it is what is stored."""
        rows = [
            {"instance_id": name, "campaign_id": campaign, "post_id": post_id, "post_date": at(published, 12)}
            for post_id, published in posts.items()
            for campaign in (1, 2)
        ]
        written = self.lake.write(
            table,
            Partition(day, name),
            pa.Table.from_pylist(rows, POSTS_SCHEMA),
            metadata={"fetched_at": requested.isoformat(timespec="milliseconds")},
        )
        records = RunRecords(self.lake, table, now=requested)
        record = FileRecord(table, day, name, requested_at=requested, content_hash=written.content_hash)
        records.add([record])
        records.save()

    def publish(self, day: date, *post_ids: int, requested: datetime, name: str = A) -> None:
        self.write(PUBLISHED, day, dict.fromkeys(post_ids, day), requested=requested, name=name)

    def report(self, day: date, posts: Mapping[int, date], *, requested: datetime, name: str = A) -> None:
        self.write(METRICS, day, posts, requested=requested, name=name)

    def look(self) -> LatePosts:
        """Update `coverage`, as its asset does, and return what its files lack."""
        files = {name: self.lake.file_versions(name) for name in POSTS_NAMES}
        update = update_records(self.lake, files, {})
        self.read.clear()
        if self.unavailable:
            self.unavailable.rename(self.unavailable.with_suffix(".away"))
            self.unavailable.symlink_to("/proc/self/mem")  # an input/output error, also for root
        update = with_late_posts(self.lake, update, memory_gb=0.5)
        if self.unavailable:
            self.unavailable.with_suffix(".away").replace(self.unavailable)
        days = days_between(START, self.before - DAY)
        write_coverage(self.lake, update, judged(update.table, compared=days), today=NEW)
        return stored_late_posts(self.lake, days=days_between(START, NEW))


@pytest.fixture
def late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LateLake:
    """A lake with a post on each of two old days."""
    late = LateLake(Lake(str(tmp_path)))
    add_view = LakeDatabase.add_view

    def recorded(database: LakeDatabase, table: Table, partitions: Sequence[Partition] | None = None) -> object:
        late.read += partitions or ()
        return add_view(database, table, partitions)

    monkeypatch.setattr(LakeDatabase, "add_view", recorded)
    for name in (A, B):
        late.publish(OLD, 1, requested=at(OLD + 28 * DAY), name=name)
        late.publish(OTHER, 2, requested=at(OTHER + 28 * DAY), name=name)
        late.report(OLD, {1: OLD}, requested=at(OLD + 28 * DAY), name=name)
    assert late.look() == LatePosts()
    return late


OF_A = Partition(OLD, A)


def test_a_post_with_results_that_its_old_day_lacks_makes_the_file_stale_until_it_is_fetched(late: LateLake) -> None:
    late.report(NEW, {1: OLD, 5: OLD}, requested=at(NEW + DAY))
    assert late.look().stale == {OF_A: [5]}
    assert late.read == [Partition(NEW, A), OF_A]
    late.publish(OLD, 1, 5, requested=at(NEW + DAY, 7))
    assert late.look() == LatePosts()


def test_a_post_that_is_still_absent_is_withdrawn_and_asked_for_once(late: LateLake) -> None:
    late.report(NEW, {5: OLD}, requested=at(NEW + DAY))
    assert late.look().stale
    late.publish(OLD, 1, requested=at(NEW + DAY, 7))  # unchanged
    assert late.look() == LatePosts(withdrawn={OF_A: [5]})
    # It goes on to earn.
    for offset in range(2, 5):
        late.report(NEW + offset * DAY, {5: OLD, 1: OLD}, requested=at(NEW + offset * DAY))
        assert late.look() == LatePosts(withdrawn={OF_A: [5]})
    # A second one is asked for, and the first one with it.
    late.report(NEW + 5 * DAY, {5: OLD, 6: OLD}, requested=at(NEW + 5 * DAY))
    assert late.look() == LatePosts(stale={OF_A: [6]}, withdrawn={OF_A: [5]})
    late.publish(OLD, 1, 5, requested=at(NEW + 5 * DAY, 7))
    assert late.look() == LatePosts(withdrawn={OF_A: [6]})


def test_a_post_that_moves_between_old_days_is_fetched_at_the_new_day(late: LateLake) -> None:
    late.report(NEW, {1: OTHER}, requested=at(NEW + DAY))
    assert late.look().stale == {Partition(OTHER, A): [1]}
    late.publish(OTHER, 1, 2, requested=at(NEW + DAY, 7))
    assert late.look() == LatePosts()


def test_files_of_restated_days_and_of_days_before_the_start_are_not_stale(late: LateLake) -> None:
    recent = late.before
    late.publish(recent, requested=at(NEW))
    late.report(NEW, {7: recent, 8: START - DAY, 9: date(2024, 1, 2)}, requested=at(NEW + DAY))  # 9: no file
    late.publish(START - DAY, requested=at(NEW))
    assert late.look() == LatePosts()
    versions = late.lake.file_versions(PUBLISHED)
    assert current_files(late.lake, PUBLISHED, versions) == versions.keys()
    # What is absent is known, and asked for once the day is old, unless a daily response decided before.
    late.before += DAY
    assert late.look() == LatePosts(stale={Partition(recent, A): [7]})
    assert current_files(late.lake, PUBLISHED, versions) == versions.keys() - {Partition(recent, A)}
    late.publish(recent, requested=at(NEW + 2 * DAY))
    assert late.look() == LatePosts(withdrawn={Partition(recent, A): [7]})


@pytest.mark.parametrize("has_partition", [True, False])
def test_a_post_that_is_quarantined_makes_no_file_stale(has_partition: bool, late: LateLake) -> None:
    late.report(NEW, {5: OLD, 6: OLD}, requested=at(NEW + DAY))
    bad_rows = [BadRow(reason="bad", raw=raw) for raw in ("6", '{"postId": 5, "creatorId": 6, "engagements": "many"}')]
    quarantine = late.lake.quarantine
    of_query = quarantine.path_of_query(PUBLISHED, "", (OLD - DAY, OLD + DAY))
    quarantine.write(quarantine.path_of(PUBLISHED, OF_A) if has_partition else of_query, bad_rows, query="")
    damaged = quarantine.write(quarantine.path_of(PUBLISHED, Partition(OTHER, A)), bad_rows, query="")
    Path(damaged).write_text("no JSON")
    assert late.look().stale == {OF_A: [6]}


@pytest.mark.parametrize(("table", "day"), [(METRICS, NEW), (PUBLISHED, OLD)])
def test_a_file_that_cannot_be_read_is_looked_at_again_although_nothing_has_changed(
    table: str, day: date, late: LateLake
) -> None:
    late.report(NEW, {5: OLD}, requested=at(NEW + DAY))
    late.unavailable = Path(late.lake.url(table, Partition(day, A)))
    assert late.look() == LatePosts()
    late.unavailable = None
    assert [*late.look().stale] == [OF_A]
    assert late.read == [Partition(NEW, A), OF_A]
    assert ([*late.look().stale], late.read) == ([OF_A], [])


def test_a_response_that_lacks_a_known_post_makes_no_file_stale(late: LateLake) -> None:
    late.publish(OLD, requested=at(OLD + 42 * DAY))
    assert late.look() == LatePosts()
    late.report(OLD, {1: OLD, 3: OLD}, requested=at(OLD + 40 * DAY))
    assert late.look() == LatePosts(withdrawn={OF_A: [1, 3]})


def test_a_look_reads_only_changed_files_and_those_of_the_days_that_they_name(late: LateLake) -> None:
    late.report(NEW, {5: OLD}, requested=at(NEW + DAY))
    found = late.look()
    assert (found, late.read) == (late.look(), [])
    late.publish(OLD, 1, requested=at(NEW), name=B)  # unchanged
    assert (found, late.read) == (late.look(), [])
    # Without `coverage`, all files are looked at.
    Path(late.lake.root, COVERAGE_TABLE, "part-0.parquet").unlink()
    assert found == late.look()
    assert len(late.read) == 5


def test_the_first_look_at_a_lake_of_an_older_version_is_at_all_files(late: LateLake) -> None:
    late.report(NEW, {5: OLD}, requested=at(NEW + DAY))
    late.look()
    stored = late.lake.read_table(COVERAGE_TABLE, schema=COVERAGE_SCHEMA)
    assert stored is not None
    late.lake.write_table(COVERAGE_TABLE, stored.drop_columns(["stale_posts", "stale_since", "withdrawn_posts"]))
    assert stored_late_posts(late.lake, days=[OLD]) == LatePosts()  # which posts, it did not say
    assert late.look().stale == {OF_A: [5]}


def test_a_stale_file_is_not_stale_once_a_run_has_recorded_a_later_response(late: LateLake) -> None:
    late.report(NEW, {5: OLD}, requested=at(NEW + DAY))
    late.look()
    late.publish(OLD, 1, requested=at(NEW + DAY, 7))  # unchanged, so nothing requests an update of the table
    assert stored_late_posts(late.lake, days=[OLD]).stale
    fetched = newest_fetches(late.lake, POSTS_NAMES)
    assert not stored_late_posts(late.lake, days=[OLD], fetched=fetched).stale


def test_absent_posts_of_a_file_that_cannot_be_read_stay_what_they_were(late: LateLake) -> None:
    late.report(NEW, {5: OLD, 6: OLD}, requested=at(NEW + DAY))
    late.look()
    late.publish(OLD, 1, 5, requested=at(NEW + DAY, 7))
    late.unavailable = Path(late.lake.url(PUBLISHED, OF_A))
    assert late.look().stale == {OF_A: [5, 6]}
    late.unavailable = None
    assert late.look() == LatePosts(withdrawn={OF_A: [6]})


def test_a_damaged_file_is_left_out_until_it_can_be_read(late: LateLake) -> None:
    path = Path(late.lake.root) / PUBLISHED / f"date={OLD}" / f"instance_id={A}" / "part-0.parquet"
    intact = path.read_bytes()
    path.write_bytes(b"PAR1")
    assert late.look() == LatePosts()
    path.write_bytes(intact)
    assert late.look() == LatePosts()


def test_stale_files_are_described_with_their_posts() -> None:
    assert describe_stale({}) == ""
    assert describe_stale({OF_A: [5, 6]}) == "1 file is stale: 2024-01-10 a lacks posts 5, 6, with results"
    many = {Partition(OLD + number * DAY, A): [5] for number in range(22)}
    first = "2024-01-10 a lacks post 5, with results; 2024-01-11 a lacks post 5, with results; "
    assert describe_stale(many).startswith(f"22 files are stale: {first}")
    assert describe_stale(many).endswith("2024-01-29 a lacks post 5, with results; 2 more")
