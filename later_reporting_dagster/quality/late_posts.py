"""Posts that came after the day of their publication was fetched: they have results, and its file lacks them.

A look reads what has changed. What it finds is kept in the rows of `coverage`: `after_look` and `judged` decide what is
stale.
"""

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.lake import FileDamaged, Lake, LakeUnavailable, Partition
from later_reporting_dagster.lake.coverage import COVERAGE_SCHEMA, NEVER, FileRecord, Records, Update, from_table
from later_reporting_dagster.lake.database import LakeDatabase, ViewContents
from later_reporting_dagster.lake.tables import COVERAGE_TABLE, POST_METRICS_DAILY, POSTS_NAMES, POSTS_PUBLISHED
from later_reporting_dagster.rollups.sql_engine import open_rollup_database

# Queried together: memory grows with the number of instances.
_INSTANCES_TOGETHER = 20
_MAX_DESCRIBED = 20
_SQL = Path(__file__).with_name("late_posts.sql")
_POSTS_SCHEMA = pa.schema({"instance_id": pa.string(), "date": pa.date32(), "post_id": pa.int64()})
_FILES_SCHEMA = pa.schema(
    {"instance_id": pa.string(), "date": pa.date32(), "requested_at": pa.timestamp("us", tz="UTC")}
)
# Absent posts of a file, each with when the results that name it were requested; None for one that was known before.
AbsentPosts = Mapping[int, datetime | None]


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at changed files has found.

    Attributes:
        absent: of each file of `posts_published` that was compared, the posts that it lacks.
        unread: files of `post_metrics_daily` to look at again, because a file could not be read at the moment.
        unavailable: files of `posts_published` that could not be read at the moment.
    """

    absent: dict[Partition, dict[int, datetime | None]] = field(default_factory=dict)
    unread: set[Partition] = field(default_factory=set)
    unavailable: set[Partition] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class LatePosts:
    """What the files of `posts_published` lack, as far as `coverage` knows.

    Attributes:
        stale: posts of the files that are fetched again.
        withdrawn: posts that the API did not return for their day, although it was requested later.
    """

    stale: dict[Partition, list[int]] = field(default_factory=dict)
    withdrawn: dict[Partition, list[int]] = field(default_factory=dict)


def stored_late_posts(lake: Lake, *, days: Collection[date], fetched: Records | None = None) -> LatePosts:
    """Return what files of these days lack; not those of retired instances.

    `fetched`: later fetches than `coverage` knows. A file whose response came since is no longer stale.
    """
    late = LatePosts()
    stored = lake.read_intact_table(COVERAGE_TABLE, schema=COVERAGE_SCHEMA)
    if stored is None:
        return late
    is_late = pc.field("is_stale") | (pc.list_value_length(pc.field("withdrawn_posts")) > 0)
    marks = lake.retired.marks()
    for record in from_table(stored.filter(is_late)):
        if record.day not in days or not marks.is_in_numbers(record.instance_id):
            continue
        newest = (fetched or {}).get((POSTS_PUBLISHED.name, record.partition))
        is_answered = newest and newest.was_requested_since(record.stale_since)
        if record.is_stale and record.stale_posts and not is_answered:
            late.stale[record.partition] = [*record.stale_posts]
        if record.withdrawn_posts:
            late.withdrawn[record.partition] = [*record.withdrawn_posts]
    return late


def describe_stale(stale: Mapping[Partition, Sequence[int]], *, most: int = _MAX_DESCRIBED) -> str:
    """Return how many files are stale, and which posts the first ones lack; an empty text if none is."""
    lines = [
        f"{partition} lacks post{'s' * (len(posts) > 1)} {', '.join(map(str, posts[:most]))}, with results"
        for partition, posts in sorted(stale.items())
    ]
    more = f"; {len(lines) - most} more" if len(lines) > most else ""
    count = f"{len(lines)} file{'s are' if len(lines) > 1 else ' is'} stale"
    return f"{count}: {'; '.join(lines[:most])}{more}" if lines else ""


def with_late_posts(lake: Lake, update: Update, *, memory_gb: float) -> Update:
    """Return the update after a look at the files that have changed, for posts that `posts_published` lacks.

    It reads the changed files of `post_metrics_daily`, and the files of the days on which their posts came out.
    """
    metrics, published = POST_METRICS_DAILY.name, POSTS_PUBLISHED.name
    replaced, changed = {*update.changed.get(published, ())}, update.changed.get(metrics, ())
    if _lacks_absent_posts(update.unchanged, update.records, replaced):
        for name in POSTS_NAMES:
            update = update.with_records(name, update.files.get(name, ()))
        changed = [each for name, each in update.records if name == metrics]
    requested = {each: row.content_requested_at for each in changed if (row := update.records[metrics, each]).has_file}
    known = {each: posts for each in replaced if (posts := _absent_posts(update.records[published, each]))}
    compared = {
        each
        for each in update.files.get(published, ())
        if (new := update.records.get((published, each))) is None or new.has_file
    }
    look = Look()
    instances = sorted({str(partition.instance_id) for partition in [*requested, *known]})
    if instances:
        with open_rollup_database(lake, memory_gb=memory_gb) as database:
            for start in range(0, len(instances), _INSTANCES_TOGETHER):
                batch = {*instances[start : start + _INSTANCES_TOGETHER]}
                _look_at_batch(
                    database,
                    look,
                    changed={each: at for each, at in requested.items() if each.instance_id in batch},
                    published=[each for each in compared if each.instance_id in batch],
                    known={each: ids for each, ids in known.items() if each.instance_id in batch},
                )
    _drop_quarantined(lake, look.absent)
    looked_at = look.absent.keys() | look.unavailable
    update = update.with_records(published, looked_at - {each for name, each in update.records if name == published})
    records = dict(update.records)
    for (name, partition), record in update.records.items():
        if name != published or not record.has_file:
            continue
        if partition in look.unavailable:
            records[published, partition] = record._replace(file_version=None)
            continue
        absent = look.absent.get(partition)
        if absent is not None and partition not in replaced:
            absent = {**dict.fromkeys(_absent_posts(record)), **absent}
        records[published, partition] = after_look(record, absent)
    for partition in look.unread:
        # As of no version, so that it is looked at again.
        records[metrics, partition] = records[metrics, partition]._replace(file_version=None)
    return replace(update, records=records)


def _lacks_absent_posts(unchanged: pa.Table, records: Records, replaced: Container[Partition]) -> bool:
    """Return whether an earlier release wrote a row of `posts_published`, which did not say which posts are absent."""
    is_compared = (pc.field("table_name") == POSTS_PUBLISHED.name) & pc.field("has_file")
    return bool(unchanged.filter(is_compared)["stale_posts"].null_count) or any(
        record.stale_posts is None
        for (name, partition), record in records.items()
        if name == POSTS_PUBLISHED.name and record.has_file and partition not in replaced
    )


def _absent_posts(record: FileRecord) -> set[int]:
    return {*(record.stale_posts or ()), *(record.withdrawn_posts or ())} if record.has_file else set()


def after_look(record: FileRecord, absent: AbsentPosts | None) -> FileRecord:
    """Return the record of a file of `posts_published` that lacks these posts; None if it was not looked at.

    A file is stale if results that name an absent post were requested after it, and is then requested again. A post
    that is still absent from that response is withdrawn, and the file is not requested for it again.
    """
    stale, withdrawn, since = {*(record.stale_posts or ())}, {*(record.withdrawn_posts or ())}, record.stale_since
    if stale and record.was_requested_since(since):
        stale, withdrawn = set[int](), stale | withdrawn
    if absent is not None:
        new = {post: named for post, named in absent.items() if named and post not in stale | withdrawn}
        late = {post for post, named in new.items() if not record.was_requested_since(named)}
        stale, withdrawn = (stale & absent.keys()) | late, (withdrawn & absent.keys()) | (new.keys() - late)
        since = max([*(new[post] for post in late), *([since] if since else [])], default=None)
    return record._replace(
        stale_posts=sorted(stale), stale_since=since if stale else None, withdrawn_posts=sorted(withdrawn)
    )


def judged(table: pa.Table, *, compared: Iterable[date]) -> pa.Table:
    """Return the rows with `is_stale`, of files of `posts_published` on these days; the others are not judged."""
    is_compared = pc.and_(pc.equal(table["table_name"], POSTS_PUBLISHED.name), table["has_file"])
    is_compared = pc.and_(is_compared, pc.is_in(table["date"], pa.array([*compared], pa.date32())))
    has_stale = pc.greater(pc.fill_null(pc.list_value_length(table["stale_posts"]), 0), 0)
    number = table.schema.get_field_index("is_stale")
    return table.set_column(number, table.schema.field(number), pc.if_else(is_compared, has_stale, None))


def _look_at_batch(
    database: LakeDatabase,
    look: Look,
    *,
    changed: Mapping[Partition, datetime | None],
    published: Collection[Partition],
    known: Mapping[Partition, Collection[int]],
) -> None:
    """Add what a look at the files of some instances finds.

    Args:
        changed: files of `post_metrics_daily`, with when their content was requested.
        published: the files of `posts_published` that exist.
        known: the absent posts of those that have changed, which are read again.
    """
    connection = database.connection
    files = [(each.instance_id, each.day, requested or NEVER) for each, requested in changed.items()]
    connection.register("changed_files", _table(files, _FILES_SCHEMA))
    posts = [(each.instance_id, each.day, post_id) for each, ids in known.items() for post_id in ids]
    connection.register("known", _table(posts, _POSTS_SCHEMA))

    def name_posts(contents: ViewContents) -> tuple[set[Partition], set[Partition]]:
        connection.execute(_SQL.read_text())
        days = connection.sql("SELECT DISTINCT date, instance_id FROM named").fetchall()
        return {Partition(*row) for row in days}, _unavailable(contents, POST_METRICS_DAILY.name)

    def find_absent(contents: ViewContents) -> tuple[list[tuple[str, date, int, datetime | None]], ViewContents]:
        return connection.sql(
            "SELECT instance_id, date, post_id, max(since) FROM named"
            " ANTI JOIN posts_published USING (instance_id, date, post_id) GROUP BY ALL ORDER BY ALL"
        ).fetchall(), contents

    named, unread = database.read([(POST_METRICS_DAILY.table, [*changed])], name_posts)
    to_compare = [partition for partition in published if partition in named]
    rows, contents = database.read([(POSTS_PUBLISHED.table, to_compare)], find_absent)
    unavailable = _unavailable(contents, POSTS_PUBLISHED.name)
    instances = {each.instance_id for each in unavailable}
    look.unavailable.update(unavailable)
    look.unread.update(unread, (each for each in changed if each.instance_id in instances))
    look.absent.update({each: {} for each in contents.partitions[POSTS_PUBLISHED.name]})
    for instance_id, day, post_id, since in rows:
        if (partition := Partition(day, instance_id)) in look.absent:
            look.absent[partition][post_id] = since


def _unavailable(contents: ViewContents, table_name: str) -> set[Partition]:
    """Return the files that cannot be read at the moment. Damaged ones are fetched again, and then looked at."""
    errors = contents.unreadable[table_name].items()
    return {partition for partition, error in errors if isinstance(error, LakeUnavailable)}


def _table(rows: Iterable[tuple[object, ...]], schema: pa.Schema) -> pa.Table:
    columns = [*zip(*rows, strict=True)] or [()] * len(schema)
    return pa.Table.from_arrays([pa.array(*each) for each in zip(columns, schema.types, strict=True)], schema=schema)


def _drop_quarantined(lake: Lake, absent: dict[Partition, dict[int, datetime | None]]) -> None:
    """Leave out posts that are a quarantined row of their file, or of a query of its day: the API has sent them."""
    with_posts = [partition for partition, posts in absent.items() if posts]
    for file in lake.quarantine.files(POSTS_PUBLISHED.name) if with_posts else ():
        first, last = file.day_range or (date.max, date.min)
        concerned = [each for each in with_posts if each == file.partition or first <= each.day <= last]
        if not concerned:
            continue
        with suppress(FileDamaged):  # the check of the quarantine reports it
            ids = {row.id_in("postId") for row in lake.quarantine.rows_in(file)}
            for partition in concerned:
                absent[partition] = {post: at for post, at in absent[partition].items() if post not in ids}
