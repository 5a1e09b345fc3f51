"""Posts that came after the day of their publication was fetched: they have results, and its file lacks them.

The table `posts` has when such results were requested, and `coverage` when the file was. The file is stale if its last
response is older than the results, and is then fetched again. A post that is still absent is withdrawn.

Each fetch of `posts_published` writes down which posts its responses lacked: `DailyFiles.store`, in `withdrawn_posts`.
Without that, an account whose days are not those of UTC would ask for the same files whenever its results are restated.
A post leaves with the next response that has it, or once no results name that day any more.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date, datetime

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.lake import FileDamaged, Lake, Partition
from later_reporting_dagster.lake.coverage import FileRecord, Records, newest_fetches, records_of, stored_coverage
from later_reporting_dagster.lake.database import files_of_older_definitions, table_files
from later_reporting_dagster.lake.tables import COVERAGE_TABLE, POSTS_PUBLISHED, schema_of
from later_reporting_dagster.rollups.rollup_tables import POSTS

_MAX_DESCRIBED = 20
_NAMES = ("results_on", "instance_id", "post_id", "results_requested_at")
_SCHEMA: pa.Schema = pa.schema([schema_of(POSTS.columns).field(name) for name in _NAMES])
# Posts that a file lacks, each with when results that name its day were requested.
AbsentPosts = Mapping[Partition, Mapping[int, datetime]]


@dataclass(frozen=True, slots=True)
class LatePosts:
    """What files of `posts_published` lack.

    Attributes:
        stale: posts of the files that are fetched again.
        withdrawn: posts that the API did not return for their day, although it was requested later.
        unknown: why it is not known what they lack; empty if it is.
    """

    stale: dict[Partition, list[int]] = field(default_factory=dict)
    withdrawn: dict[Partition, list[int]] = field(default_factory=dict)
    unknown: str = ""


def absent_posts(lake: Lake) -> AbsentPosts | None:
    """Return the posts that files lack, by the stored table of posts; None if that is missing, damaged, or older."""
    files = table_files(lake, POSTS.table)
    if files_of_older_definitions(lake.storage, POSTS.table, files):
        return None
    if (stored := lake.read_intact_table(POSTS.name, schema=_SCHEMA)) is None:
        return None
    absent: dict[Partition, dict[int, datetime]] = {}
    rows = stored.filter(pc.is_valid(stored["results_requested_at"]))
    for day, instance_id, post_id, requested_at in zip(*(column.to_pylist() for column in rows.columns), strict=True):
        absent.setdefault(Partition(day, instance_id), {})[post_id] = requested_at
    return absent


def late_posts(
    lake: Lake, *, days: Collection[date], coverage: pa.Table | None = None, fetched: Records | None = None
) -> LatePosts:
    """Return what the files of these days lack, as of the last roll-up and the newest fetches.

    Files of retired instances are left out.

    Args:
        coverage: the stored table, if the caller has read it.
        fetched: what `newest_fetches` returns of `posts_published`, if the caller has asked for it.
    """
    coverage = stored_coverage(lake) if coverage is None else coverage
    absent = absent_posts(lake)
    if absent is None:
        return LatePosts(unknown=f"{POSTS.name} is missing, damaged, or of an older definition")
    marks, days = lake.retired.marks(), {*days}
    judged = {
        each: posts for each, posts in absent.items() if each.day in days and marks.is_in_numbers(each.instance_id)
    }
    concerned = _without_quarantined(lake, judged)
    name = POSTS_PUBLISHED.name
    fetched = newest_fetches(lake, [name]) if fetched is None else fetched
    records = records_of(coverage, name, concerned)
    late, without_time = LatePosts(), 0
    for partition, posts in concerned.items():
        record = records.get(partition) or FileRecord(name, partition.day, partition.instance_id, has_file=True)
        if response := fetched.get((name, partition)):
            record = record.with_response(response)
        if not record.has_file:
            continue
        if record.requested_at is None:
            without_time += 1
            continue
        stale, withdrawn = split_absent(record, posts)
        if stale:
            late.stale[partition] = stale
        if withdrawn:
            late.withdrawn[partition] = withdrawn
    if without_time:
        files = f"{without_time} file{'s were' if without_time > 1 else ' was'}"
        return replace(late, unknown=f"{COVERAGE_TABLE} does not say when {files} requested")
    return late


def split_absent(record: FileRecord, absent: Mapping[int, datetime]) -> tuple[list[int], list[int]]:
    """Return which of the posts that a file lacks make it stale, and which are withdrawn."""
    withdrawn = {*(record.withdrawn_posts or ())}
    stale = {post for post, at in absent.items() if post not in withdrawn and not record.was_requested_since(at)}
    return sorted(stale), sorted(absent.keys() - stale)


def describe_stale(stale: Mapping[Partition, Sequence[int]], *, most: int = _MAX_DESCRIBED) -> str:
    """Return how many files are stale, and which posts the first ones lack; an empty text if none is."""
    lines = [
        f"{partition} lacks post{'s' * (len(posts) > 1)} {', '.join(map(str, posts[:most]))}, with results"
        for partition, posts in sorted(stale.items())
    ]
    more = f"; {len(lines) - most} more" if len(lines) > most else ""
    count = f"{len(lines)} file{'s are' if len(lines) > 1 else ' is'} stale"
    return f"{count}: {'; '.join(lines[:most])}{more}" if lines else ""


def _without_quarantined(lake: Lake, absent: AbsentPosts) -> dict[Partition, dict[int, datetime]]:
    """Leave out posts that are a quarantined row of their file, or of a query of its day: the API has sent them."""
    left = {partition: {**posts} for partition, posts in absent.items()}
    for file in lake.quarantine.files(POSTS_PUBLISHED.name):
        first, last = file.day_range or (date.max, date.min)
        concerned = [each for each in left if each == file.partition or first <= each.day <= last]
        if not concerned:
            continue
        with suppress(FileDamaged):  # the check of the quarantine reports it
            ids: Iterable[int | None] = {row.id_in("postId") for row in lake.quarantine.rows_in(file)}
            for partition in concerned:
                left[partition] = {post: at for post, at in left[partition].items() if post not in ids}
    return left
