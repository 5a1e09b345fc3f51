"""Late posts: which files a lake contradicts, and what makes them current or a post withdrawn.

Posts are rolled up, stored and recorded by the code that does it in runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from later_reporting_dagster.contract import BadRow, PerformanceQuery
from later_reporting_dagster.contract.days import days_between
from later_reporting_dagster.ingest.daily_files import DailyFiles
from later_reporting_dagster.ingest.decide import Policy, Received, WriteLimits
from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, Partition
from later_reporting_dagster.lake.coverage import (
    FileRecord,
    RunRecords,
    records_of,
    stored_coverage,
    update_records,
    write_coverage,
)
from later_reporting_dagster.lake.paths import table_path
from later_reporting_dagster.lake.tables import COVERAGE_TABLE, POSTS_NAMES, POSTS_PUBLISHED
from later_reporting_dagster.quality.late_posts import LatePosts, absent_posts, describe_stale, late_posts, split_absent
from later_reporting_dagster.rollups.lake_rollups import roll_up_lake_windows
from later_reporting_dagster.rollups.rollup_tables import POSTS

METRICS, PUBLISHED = POSTS_NAMES
START, OLD, OTHER, NEW = date(2024, 1, 1), date(2024, 1, 10), date(2024, 1, 20), date(2024, 4, 1)
A, B = "a", "b/é"
DAY = timedelta(days=1)


def at(day: date, hour: int = 6) -> datetime:
    return datetime(day.year, day.month, day.day, hour, tzinfo=UTC)


@dataclass
class LateLake:
    """A lake whose posts are written day by day. Days before `before` are old."""

    lake: Lake
    before: date = NEW - timedelta(days=27)

    def rows(self, posts: Mapping[int, date], name: str, *, impressions: int = 0) -> pa.Table:
        rows = [
            {
                "instance_id": name,
                "campaign_id": campaign,
                "post_id": post_id,
                "post_date": at(published, 12),
                "organic_impressions": impressions,
            }
            for post_id, published in posts.items()
            for campaign in (1, 2)
        ]
        return pa.Table.from_pylist(rows, POSTS_SCHEMA)

    def publish(self, day: date, *post_ids: int, requested: datetime, name: str = A) -> None:
        """Store a response with posts of a day, as a fetch does."""
        partition, records = Partition(day, name), RunRecords(self.lake, PUBLISHED, now=requested)
        files = DailyFiles(POSTS_PUBLISHED, self.lake, records, absent=absent_posts(self.lake))
        limits = WriteLimits(max_row_loss_percent=100)
        policy = Policy(table=POSTS_PUBLISHED, limits=limits, latest=datetime.now(UTC), is_confirmed=True)
        received = Received(rows=self.rows(dict.fromkeys(post_ids, day), name), requested_at=requested)
        files.store({partition: received}, PerformanceQuery(start_date=day, end_date=day), policy)
        records.save()

    def report(
        self, day: date, posts: Mapping[int, date], *, requested: datetime, name: str = A, impressions: int = 0
    ) -> None:
        """Write the results of posts by id, each with its publication day."""
        self.lake.write(
            METRICS,
            Partition(day, name),
            self.rows(posts, name, impressions=impressions),
            metadata={"fetched_at": requested.isoformat(timespec="milliseconds")},
        )

    def update_coverage(self) -> None:
        files = {name: self.lake.file_versions(name) for name in POSTS_NAMES}
        update = update_records(self.lake, files, {})
        write_coverage(self.lake, update, update.table, today=NEW)

    def roll_up(self) -> None:
        windows = roll_up_lake_windows(self.lake, [POSTS], memory_gb=0.5)
        made_from = windows.made_from[POSTS.name].key_values
        self.lake.write_table(POSTS.name, windows.tables[POSTS.name], metadata=made_from, replaces_metadata=True)

    def late(self) -> LatePosts:
        return late_posts(self.lake, days=days_between(START, self.before - DAY))

    def look(self) -> LatePosts:
        """Update what a run updates, and return what files lack."""
        self.roll_up()
        self.update_coverage()
        return self.late()

    def withdrawn(self, partition: Partition) -> list[int]:
        """Return the posts that a file is remembered to lack, of fetches that `coverage` knows."""
        return [*(records_of(stored_coverage(self.lake), PUBLISHED, [partition])[partition].withdrawn_posts or ())]


@pytest.fixture
def late(tmp_path: Path) -> LateLake:
    """A lake with a post on each of two old days."""
    late = LateLake(Lake(str(tmp_path)))
    for name in (A, B):
        late.publish(OLD, 1, requested=at(OLD + 28 * DAY), name=name)
        late.publish(OTHER, 2, requested=at(OTHER + 28 * DAY), name=name)
        late.report(OLD, {1: OLD}, requested=at(OLD + 28 * DAY), name=name)
    assert late.look() == LatePosts()
    return late


OF_A, OF_OTHER = Partition(OLD, A), Partition(OTHER, A)


def test_a_post_with_results_that_its_old_day_lacks_makes_the_file_stale_until_it_is_fetched(late: LateLake) -> None:
    late.report(NEW, {1: OLD, 5: OLD}, requested=at(NEW + DAY))
    assert late.look() == LatePosts(stale={OF_A: [5]})
    late.publish(OLD, 1, 5, requested=at(NEW + DAY, 7))
    assert late.look() == LatePosts()
    assert not late.withdrawn(OF_A)


def test_a_post_that_is_still_absent_is_withdrawn_and_asked_for_once(late: LateLake) -> None:
    late.report(NEW, {5: OLD}, requested=at(NEW + DAY))
    assert late.look().stale
    late.publish(OLD, 1, requested=at(NEW + DAY, 7))  # unchanged
    assert late.look() == LatePosts(withdrawn={OF_A: [5]})
    # It goes on to earn, and the first results that name it are restated.
    for offset in range(2, 5):
        late.report(NEW, {5: OLD}, requested=at(NEW + offset * DAY), impressions=offset)
        late.report(NEW + offset * DAY, {5: OLD, 1: OLD}, requested=at(NEW + offset * DAY))
        assert late.look() == LatePosts(withdrawn={OF_A: [5]})
    # A second one is asked for, and the first one with it.
    late.report(NEW + 5 * DAY, {5: OLD, 6: OLD}, requested=at(NEW + 5 * DAY))
    assert late.look() == LatePosts(stale={OF_A: [6]}, withdrawn={OF_A: [5]})
    late.publish(OLD, 1, 5, requested=at(NEW + 5 * DAY, 7))
    assert late.look() == LatePosts(withdrawn={OF_A: [6]})
    assert late.withdrawn(OF_A) == [6]


def test_a_post_that_moves_between_old_days_is_fetched_at_the_new_day(late: LateLake) -> None:
    late.report(NEW, {1: OTHER}, requested=at(NEW + DAY))
    assert late.look() == LatePosts(stale={OF_OTHER: [1]})
    late.publish(OTHER, 1, 2, requested=at(NEW + DAY, 7))
    assert late.look() == LatePosts()


def test_a_post_that_is_deleted_after_its_results_is_withdrawn_and_not_asked_for(late: LateLake) -> None:
    late.publish(OLD, requested=at(OLD + 42 * DAY))
    late.update_coverage()
    assert late.withdrawn(OF_A) == [1]
    assert late.look() == LatePosts(withdrawn={OF_A: [1]})
    late.report(OLD, {1: OLD}, requested=at(NEW), impressions=1)  # restated after it was deleted
    assert late.look() == LatePosts(withdrawn={OF_A: [1]})
    late.publish(OLD, requested=at(NEW + DAY))  # which says no more of it than that it is still absent
    late.update_coverage()
    assert late.withdrawn(OF_A) == [1]
    late.publish(OLD, 1, requested=at(NEW + 2 * DAY))
    late.update_coverage()
    assert late.withdrawn(OF_A) == []


def test_an_account_of_another_time_zone_asks_for_each_file_once(late: LateLake) -> None:
    """The API returns each post for the day before the one that its results name, whose file never has it."""
    first, asked = NEW - 28 * DAY, list[list[date]]()
    for morning in range(7):
        now, day = NEW + morning * DAY, first + morning * DAY
        late.before = day + DAY  # `day` is old from this morning on
        late.publish(day, 100 + morning, requested=at(now - 2 * DAY))
        named = {100 + number: first + (number + 1) * DAY for number in range(morning + 1)}
        for offset in range(morning + 1):  # all its results are restated each morning
            late.report(now - offset * DAY, named, requested=at(now), impressions=morning)
        asked.append([partition.day for partition in late.look().stale])
        for each in asked[-1]:
            late.publish(each, 100 + (each - first).days, requested=at(now, 7))  # as before
        assert not late.look().stale
    assert asked == [[], *([first + number * DAY] for number in range(1, 7))]


def test_files_of_restated_days_and_of_days_before_the_start_are_not_stale(late: LateLake) -> None:
    recent = late.before
    late.publish(recent, requested=at(NEW))
    late.report(NEW, {7: recent, 8: START - DAY, 9: date(2024, 1, 2)}, requested=at(NEW + DAY))  # 9: no file
    late.publish(START - DAY, requested=at(NEW))
    assert late.look() == LatePosts()
    # What is absent is asked for once the day is old, unless a daily response decided before.
    late.before += DAY
    assert late.look() == LatePosts(stale={Partition(recent, A): [7]})
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
    assert late.look() == LatePosts(stale={OF_A: [6]})


def test_a_file_of_a_retired_instance_is_not_stale(late: LateLake) -> None:
    late.report(NEW, {5: OLD}, requested=at(NEW + DAY))
    assert late.look().stale
    late.lake.retired.add(A)
    assert late.late() == LatePosts()


def test_nothing_is_known_without_the_table_of_posts_nor_of_a_file_without_a_known_request(late: LateLake) -> None:
    late.report(NEW, {5: OLD}, requested=at(NEW + DAY))
    assert late.look().stale
    path = Path(late.lake.root, table_path(POSTS.name))
    intact = path.read_bytes()
    rows = late.lake.read_table(POSTS.name, schema=POSTS.table.schema)
    late.lake.write_table(POSTS.name, rows, metadata={"definition": str(POSTS.definition - 1)}, replaces_metadata=True)
    for damage in (path.read_bytes(), b"PAR1", None):
        path.unlink() if damage is None else path.write_bytes(damage)
        assert absent_posts(late.lake) is None
        assert late.late() == LatePosts(unknown="posts is missing, damaged, or of an older definition")
    path.write_bytes(intact)
    assert late.late().stale
    Path(late.lake.root, table_path(COVERAGE_TABLE)).unlink()
    assert late.late() == LatePosts(unknown="coverage does not say when 1 file was requested")
    late.publish(OLD, 1, requested=at(NEW + DAY, 7))  # what runs have recorded is known without it
    assert late.late() == LatePosts(withdrawn={OF_A: [5]})


def test_without_the_table_of_posts_a_response_leaves_what_is_remembered(late: LateLake) -> None:
    late.publish(OLD, requested=at(OLD + 42 * DAY))
    late.update_coverage()
    Path(late.lake.root, table_path(POSTS.name)).unlink()
    late.publish(OLD, requested=at(OLD + 43 * DAY))
    late.update_coverage()
    assert late.withdrawn(OF_A) == [1]


def test_coverage_of_an_older_version_is_read(late: LateLake) -> None:
    late.report(NEW, {5: OLD}, requested=at(NEW + DAY))
    assert late.look().stale
    stored = stored_coverage(late.lake)
    nothing = pa.nulls(stored.num_rows)
    for name, type_ in {"is_stale": pa.bool_(), "stale_posts": pa.list_(pa.int64())}.items():
        stored = stored.append_column(name, nothing.cast(type_))
    late.lake.write_table(COVERAGE_TABLE, stored.drop_columns(["withdrawn_posts"]))
    assert late.late() == LatePosts(stale={OF_A: [5]})
    late.update_coverage()
    assert late.late() == LatePosts(stale={OF_A: [5]})


def test_a_stale_file_is_not_stale_once_a_run_has_recorded_a_later_response(late: LateLake) -> None:
    late.report(NEW, {5: OLD}, requested=at(NEW + DAY))
    assert late.look().stale
    late.publish(OLD, 1, requested=at(NEW + DAY, 7))  # unchanged, so nothing requests an update of the tables
    assert late.late() == LatePosts(withdrawn={OF_A: [5]})


def test_a_damaged_file_is_left_out_until_it_can_be_read(late: LateLake) -> None:
    late.report(NEW, {5: OLD}, requested=at(NEW + DAY))
    path = Path(late.lake.url(PUBLISHED, OF_A))
    intact = path.read_bytes()
    path.write_bytes(b"PAR1")
    assert late.look() == LatePosts()
    path.write_bytes(intact)
    assert late.look() == LatePosts(stale={OF_A: [5]})


@pytest.mark.parametrize(
    ("requested", "withdrawn", "expected"),
    [
        (at(NEW), [], ([], [5])),
        (at(NEW) + timedelta(milliseconds=1), [], ([], [5])),
        (at(NEW) - timedelta(milliseconds=1), [], ([5], [])),
        (at(NEW) - timedelta(milliseconds=1), [5, 6], ([], [5])),
        (None, [], ([5], [])),
    ],
)
def test_a_file_is_stale_if_its_last_response_is_older_than_results_of_a_post_that_is_not_withdrawn(
    requested: datetime | None, withdrawn: list[int], expected: tuple[list[int], list[int]]
) -> None:
    record = FileRecord(PUBLISHED, OLD, A, has_file=True, requested_at=requested, withdrawn_posts=withdrawn)
    assert split_absent(record, {5: at(NEW)}) == expected


def test_stale_files_are_described_with_their_posts() -> None:
    assert describe_stale({}) == ""
    assert describe_stale({OF_A: [5, 6]}) == "1 file is stale: 2024-01-10 a lacks posts 5, 6, with results"
    many = {Partition(OLD + number * DAY, A): [5] for number in range(22)}
    first = "2024-01-10 a lacks post 5, with results; 2024-01-11 a lacks post 5, with results; "
    assert describe_stale(many).startswith(f"22 files are stale: {first}")
    assert describe_stale(many).endswith("2024-01-29 a lacks post 5, with results; 2 more")
