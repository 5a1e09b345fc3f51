"""Files of `posts_published` that the lake contradicts: a post came after its day was fetched, or stands in two days.

A file is stale if something says so that was requested after it: then it is fetched again. A post that is still absent
from a later response is withdrawn. What is known of posts is kept in one file per instance, `{root}/_late_posts/posts`,
so that only files that have changed are read. Other readers of the lake skip names that begin with an underscore.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.lake import FileDamaged, Lake, LakeUnavailable, Partition, encode_instance_id, schema_of
from later_reporting_dagster.lake.database import LakeDatabase, ViewContents, open_database
from later_reporting_dagster.lake.parquet_file import from_parquet, parse_metadata, to_parquet
from later_reporting_dagster.lake.tables import POSTS_PUBLISHED, RAW_NAMES, RAW_TABLES
from later_reporting_dagster.rollups.rollup_tables import POSTS
from later_reporting_dagster.rollups.sql_engine import open_rollup_database, register_stored_files

_DIRECTORY = "_late_posts"
_CONTRADICTIONS = f"{_DIRECTORY}/contradictions.parquet"
# In the metadata of that file: a digest of the files of each instance, from which its rows were found.
_DIGESTS = "digests"
# Queried together: each query takes a listing, and memory grows with the number of instances.
_INSTANCES_TOGETHER = 20
_ROWS_TOGETHER = 65_536
_MAX_DESCRIBED = 20
_SQL = Path(__file__).with_name("late_posts.sql")
_INSTANT = pa.timestamp("us", tz="UTC")
_NEVER = datetime.fromtimestamp(0, UTC)
_FILES_SCHEMA = pa.schema(
    {
        "table_name": pa.string(),
        "instance_id": pa.string(),
        "date": pa.date32(),
        "content_hash": pa.string(),
        "content_requested_at": _INSTANT,
    }
)
_POST_DAYS_SCHEMA = pa.schema(
    {
        "table_name": pa.string(),
        "instance_id": pa.string(),
        "date": pa.date32(),
        "post_id": pa.int64(),
        "seen_on": pa.date32(),
        "since": _INSTANT,
        "content_hash": pa.string(),
    }
)
_CONTRADICTIONS_SCHEMA = pa.schema(
    {
        "instance_id": pa.string(),
        "date": pa.date32(),
        "post_id": pa.int64(),
        "seen_on": pa.date32(),
        "other_date": pa.date32(),
        "since": _INSTANT,
    }
)


@dataclass(frozen=True, slots=True)
class LatePosts:
    """What the lake contradicts, by day and instance of `posts_published`.

    Attributes:
        stale: the reasons to fetch a file again.
        withdrawn: posts with results that are not in the response for their day, although it was requested later.
    """

    stale: dict[Partition, list[str]] = field(default_factory=dict)
    withdrawn: dict[Partition, list[int]] = field(default_factory=dict)


def describe_stale(stale: Mapping[Partition, Sequence[str]], *, most: int = _MAX_DESCRIBED) -> str:
    """Return how many files are stale, and why the first ones are; an empty text if none is."""
    lines = [f"{partition}: {'; '.join(stale[partition])}" for partition in sorted(stale)]
    more = f"; {len(lines) - most} more" if len(lines) > most else ""
    count = f"{len(lines)} file{'s are' if len(lines) > 1 else ' is'} stale"
    return f"{count}: {'; '.join(lines[:most])}{more}" if lines else ""


def find_late_posts(
    lake: Lake, coverage: pa.Table, *, instances: Collection[str], first: date, before: date, memory_gb: float
) -> LatePosts:
    """Return which files of the days from `first` until `before` the lake contradicts.

    Later days are fetched daily, and earlier ones never.

    Args:
        coverage: the table as of now.
        instances: those that are expected.
    """
    is_raw = pc.field("has_file") & pc.field("table_name").isin(RAW_NAMES)
    of_instances = coverage.filter(is_raw & pc.field("instance_id").isin(pa.array(instances, pa.string())))
    found = LatePosts()
    contradictions = _contradictions(lake, of_instances, memory_gb=memory_gb).to_pylist()
    contradictions = [row for row in contradictions if first <= row["date"] < before]
    requested_at = _requested_at(of_instances, {Partition(row["date"], row["instance_id"]) for row in contradictions})
    absent = {
        (Partition(row["date"], row["instance_id"]), row["post_id"])
        for row in contradictions
        if row["other_date"] is None
    }
    quarantined = _quarantined(lake, absent)
    for row in contradictions:
        partition, post_id = Partition(row["date"], row["instance_id"]), row["post_id"]
        is_newer = (requested_at[partition] or _NEVER) < row["since"]
        if row["other_date"] is not None:
            if is_newer:
                found.stale.setdefault(partition, []).append(
                    f"post {post_id} is also in the file of {row['other_date']}"
                )
        elif (partition, post_id) not in quarantined:
            if is_newer:
                reason = f"post {post_id} has results of {row['seen_on']} and is not in the file"
                found.stale.setdefault(partition, []).append(reason)
            else:
                found.withdrawn.setdefault(partition, []).append(post_id)
    return found


def _requested_at(coverage: pa.Table, partitions: Set[Partition]) -> dict[Partition, datetime | None]:
    published = coverage.filter(pc.field("table_name") == POSTS_PUBLISHED.name)
    days = pa.array({partition.day for partition in partitions}, pa.date32())
    rows = published.filter(pc.field("date").isin(days)).select(["date", "instance_id", "requested_at"]).to_pylist()
    return {Partition(row["date"], row["instance_id"]): row["requested_at"] for row in rows}


def _quarantined(lake: Lake, posts: Collection[tuple[Partition, int]]) -> set[tuple[Partition, int]]:
    """Return the posts that are a quarantined row of their partition, or of a query of its day."""
    found: set[tuple[Partition, int]] = set()
    for file in lake.quarantine.files(POSTS_PUBLISHED.name) if posts else ():
        with suppress(FileDamaged, ValueError):  # the check of the quarantine reports it
            rows = [json.loads(row.raw) for row in lake.quarantine.rows_in(file)]
            ids = {str(row.get("postId")).removesuffix(".0") for row in rows if isinstance(row, dict)}
            first, last = file.day_range or (date.max, date.min)
            found |= {
                (partition, post_id)
                for partition, post_id in posts
                if (partition == file.partition or first <= partition.day <= last) and str(post_id) in ids
            }
    return found


def _contradictions(lake: Lake, coverage: pa.Table, *, memory_gb: float) -> pa.Table:
    """Return the contradictions between all files, after a look at those that have changed since the last one."""
    digests = _digests(coverage)
    known, known_digests = _CONTRADICTIONS_SCHEMA.empty_table(), {}
    with suppress(FileDamaged):
        if data := lake.storage.read(_CONTRADICTIONS):
            known = from_parquet(data, schema=_CONTRADICTIONS_SCHEMA)
            text = parse_metadata(data).key_values.get(_DIGESTS, "{}")
            known_digests = msgspec.json.decode(text, type=dict[str, str])
    if digests == known_digests:
        return known
    changed = [name for name, digest in digests.items() if known_digests.get(name) != digest]
    is_same = pc.field("instance_id").isin(pa.array(digests.keys() - changed, pa.string()))
    found = [known.filter(is_same)]
    content_requested_at = pc.coalesce(coverage["restated_at"], coverage["fetched_at"], pa.scalar(_NEVER, _INSTANT))
    files = coverage.append_column("content_requested_at", content_requested_at).select(_FILES_SCHEMA.names)
    with open_rollup_database(lake, memory_gb=memory_gb) as database:
        for start in range(0, len(changed), _INSTANCES_TOGETHER):
            batch = changed[start : start + _INSTANCES_TOGETHER]
            of_batch = files.filter(pc.field("instance_id").isin(batch))
            contradictions, unread = _look(lake, database, of_batch, batch)
            found.append(contradictions)
            # Without a digest, the next look is at what this one has not read.
            digests = {name: digest for name, digest in digests.items() if name not in unread}
    rows = pa.concat_tables(found)
    metadata = {_DIGESTS: msgspec.json.encode(digests).decode()}
    lake.storage.write(_CONTRADICTIONS, to_parquet(rows, content_hash="", key_values=metadata))
    return rows


def _digests(coverage: pa.Table) -> dict[str, str]:
    """Return a digest of the content of each instance's files."""
    digests: dict[str, hashlib._Hash] = {}
    names = ["instance_id", "table_name", "date", "content_hash"]
    for batch in coverage.select(names).to_batches(max_chunksize=_ROWS_TOGETHER):
        instance_ids, table_names, days, hashes = batch.columns
        files = pc.binary_join_element_wise(table_names, days.cast(pa.string()), hashes, " ", null_handling="replace")
        for instance_id, file in zip(instance_ids.to_pylist(), files.to_pylist(), strict=True):
            digests.setdefault(instance_id, hashlib.sha256()).update(file.encode())
    return {instance_id: digest.hexdigest() for instance_id, digest in sorted(digests.items())}


def _look(
    lake: Lake, database: LakeDatabase, files: pa.Table, instances: Sequence[str]
) -> tuple[pa.Table, set[str | None]]:
    """Read the files of some instances that have changed, and update what is known.

    Returns:
        The contradictions, and the instances with files that could not be read at the moment.
    """
    paths = {name: f"{_DIRECTORY}/posts/{encode_instance_id(name)}.parquet" for name in instances}
    stored = zip(instances, lake.storage.map(lambda name: _read_post_days(lake, paths[name]), instances), strict=True)
    known_of = dict(stored)
    known = pa.concat_tables(known_of.values())
    of_files = known.filter(pc.field("post_id").is_null())
    key = ["table_name", "instance_id", "date", "content_hash"]
    changed = files.select(key).join(of_files.select(key), key, join_type="left anti").to_pylist()
    partitions: Mapping[str, list[Partition]] = {name: [] for name in RAW_NAMES}
    for row in changed:
        partitions[row["table_name"]].append(Partition(row["date"], row["instance_id"]))
    connection = database.connection
    connection.register("files", files)
    connection.register("known", known)

    def look(contents: ViewContents) -> tuple[pa.Table, pa.Table, set[str | None]]:
        register_stored_files(connection, contents.partitions)
        connection.execute(_SQL.read_text()).fetchall()
        post_days = connection.table("post_days").to_arrow_table().cast(_POST_DAYS_SCHEMA)
        contradictions = connection.table("contradictions").to_arrow_table().cast(_CONTRADICTIONS_SCHEMA)
        unread = {
            partition.instance_id
            for errors in contents.unreadable.values()
            for partition, error in errors.items()
            if isinstance(error, LakeUnavailable)
        }
        return post_days, contradictions, unread

    post_days, contradictions, unread = database.read(
        [(table.table, partitions[table.name]) for table in RAW_TABLES], look
    )
    for name in instances:
        rows = post_days.filter(pc.field("instance_id") == name)
        lake.storage.write(paths[name], to_parquet(rows, content_hash="", key_values={}))
    return contradictions, unread


def describe_arrivals(lake: Lake, coverage: pa.Table) -> str:
    """Return by network how many days after their publication posts were first seen; an empty text if none is known.

    Known are those of days that were first fetched within two days. The others may have been there before.
    """
    schema = schema_of([column for column in POSTS.columns if column.name in ("instance_id", "post_id", "platform")])
    posts = lake.read_intact_table(POSTS.name, schema=schema)
    paths = [*lake.storage.files_in(f"{_DIRECTORY}/posts")]
    if posts is None or not paths:
        return ""
    with open_database(lake) as database:
        connection = database.connection
        seen = pa.concat_tables(lake.storage.map(lambda path: _read_post_days(lake, path), paths))
        for name, table in (("seen", seen), ("posts", posts), ("coverage", coverage)):
            connection.register(name, table)
        rows = connection.sql(_ARRIVALS).fetchall()
    return "; ".join(
        f"{platform or 'unknown'}: of {count} post{'s' * (count != 1)}, half within {half} day{'s' * (half != 1)},"
        f" 90 % within {most}, all within {latest}"
        for platform, count, half, most, latest in rows
    )


_ARRIVALS = """
SELECT platform, count(*), quantile_disc(days, 0.5), quantile_disc(days, 0.9), max(days)
FROM (
    SELECT platform, CAST(since AS DATE) - date AS days
    FROM seen JOIN posts USING (instance_id, post_id) JOIN coverage USING (table_name, instance_id, date)
    WHERE table_name = 'posts_published' AND CAST(fetched_at AS DATE) - date <= 2
)
GROUP BY platform ORDER BY platform
"""


def _read_post_days(lake: Lake, path: str) -> pa.Table:
    with suppress(FileDamaged):
        if data := lake.storage.read(path):
            return from_parquet(data, schema=_POST_DAYS_SCHEMA)
    return _POST_DAYS_SCHEMA.empty_table()
