"""The rows of a query, read from a lake: their files and what is missing, and how posts and campaigns become JSON."""

import hashlib
import json
import logging
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import lru_cache
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
from jinja2 import Environment, PackageLoader, StrictUndefined

from later_reporting_dagster.contract.days import day_ranges, days_between, newest_day
from later_reporting_dagster.contract.instances import NO_MARKS, Marks
from later_reporting_dagster.contract.metrics import DEFAULT_METRICS, METRICS, Kind, Metric
from later_reporting_dagster.contract.parameters import METRICS_MEMBER, DateBasis
from later_reporting_dagster.lake import CAMPAIGN_COLUMNS, CAMPAIGNS_TABLE, Lake, Partition, Table, post_columns
from later_reporting_dagster.lake.database import LakeDatabase, literal, open_database, table_files
from later_reporting_dagster.lake.tables import POSTS_TABLES
from later_reporting_dagster.quality.instances import load_instances, stored_instances
from later_reporting_dagster.quality.missing_files import missing_files
from later_reporting_dagster.rollups.templates import CHANNELS, raw_column, render
from later_reporting_dagster.server.lake_store.snapshots import ROW, Snapshots
from later_reporting_dagster.server.routes import ListQuery, MetricsQuery, OverTimeQuery, PostsQuery, ProblemError

_logger = logging.getLogger(__name__)

DAYS_HEADER, INSTANCES_HEADER = "X-Later-Missing-Days", "X-Later-Missing-Instances"
MAX_LISTED = 100  # keeps the headers short enough for any client
_DIGEST_BYTES = 12
_LIBRARIES = version("duckdb"), version("later-reporting-dagster")
_COLUMNS = {metric.api_name: metric.column for metric in METRICS}
# Unit cost, its measure, and how many of them it is the cost of.
_UNIT_COSTS = (("cpe", "engagements", 1), ("cpm", "impressions", 1000))
_TEMPLATES = Environment(loader=PackageLoader(__package__, "."), undefined=StrictUndefined, autoescape=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows that a query selects, in its order."""

    table: Table
    # Selects each as JSON in the column `ROW`, from the view of the table. The table `retired` has the ids of those.
    sql: str
    instance_ids: tuple[str, ...] | None  # of the query; None: all
    days: tuple[date, date] | None = None  # the first and the last one; None: the table has no partitions

    @property
    def key(self) -> bytes:
        """The identity of the query, which is kept for many: shorter than its SQL."""
        return _digest(self.sql, self.instance_ids, self.days)


def _digest(*parts: object) -> bytes:
    return hashlib.blake2b(repr(parts).encode(), digest_size=_DIGEST_BYTES).digest()


# Files


@dataclass(frozen=True, slots=True, kw_only=True)
class LakeState:
    """The files that a query reads."""

    version: bytes  # identifies the versions of the files, and the retired instances
    partitions: Sequence[Partition] | None  # that exist; None for a table without partitions
    marks: Marks
    missing: Mapping[str, str] = field(default_factory=dict)  # headers that name days and instances without a file


class LakeChanged(Exception):  # noqa: N818 - named for what happened
    """A file was replaced or removed between its listing and its read: inspect the files again."""


def inspect(rows: Rows, lake: Lake, now: datetime) -> LakeState:
    """Return the state of the files. Days that are not over are not expected to have files."""
    marks = lake.retired.marks()
    if rows.days is None:
        if not lake.table_version(rows.table.name):
            raise ProblemError(HTTPStatus.NOT_FOUND, f"this lake has no table {rows.table.name}")
        return LakeState(version=_version_of_files(lake, rows.table, None, marks), partitions=None, marks=marks)
    first, last = rows.days
    stored = lake.partitions(rows.table.name, days=days_between(first, last))
    found = [each for each in stored if marks.is_in_numbers(each.instance_id)]
    if rows.instance_ids is None:
        expected = {*load_instances(lake).in_numbers}
    else:
        expected = {*marks.in_numbers(rows.instance_ids)}
        found = [each for each in found if each.instance_id in expected]
    over = days_between(first, min(last, newest_day(now)))
    return LakeState(
        version=_version_of_files(lake, rows.table, found, NO_MARKS),
        partitions=found,
        marks=NO_MARKS,  # all of these files are in the numbers
        missing=_missing_headers(rows.table.name, over, expected, {*found}),
    )


def _version_of_files(lake: Lake, table: Table, partitions: Sequence[Partition] | None, marks: Marks) -> bytes:
    """Return a digest of the current versions of the files of a table, and of the instances that are left out of them.

    It also depends on the versions of the libraries that decide the order of equal rows. If the filesystem does not
    report versions, the digest is random.
    """
    paths = sorted(table_files(lake, table, partitions))
    versions = lake.storage.versions(paths) if paths else {}
    identities = [(path, versions[path].identity if path in versions else "") for path in paths]
    if any(identity is None for _, identity in identities):
        return secrets.token_bytes(_DIGEST_BYTES)
    return _digest(identities, sorted(marks.retired), _LIBRARIES)


def _missing_headers(
    table_name: str, days: Iterable[date], instance_ids: Collection[str], present: Collection[Partition]
) -> Mapping[str, str]:
    """Return headers that list the days, as ranges, and the percent-encoded instances of which a file is missing."""
    instances: Collection[str | None] = instance_ids or [None]  # without instances, all days are missing
    missing = missing_files(table_name, days=days, instances=instances, present=present)
    ranges = [text.replace(" to ", "/") for text in day_ranges({file.day for file in missing})]
    named = [quote(name, safe="") for name in sorted({file.instance_id for file in missing if file.instance_id})]
    headers = {DAYS_HEADER: _listed(ranges), INSTANCES_HEADER: _listed(named)}
    return {name: value for name, value in headers.items() if value}


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MAX_LISTED])
    return shown if len(names) <= MAX_LISTED else f"{shown} and {len(names) - MAX_LISTED} more"


def served_instances(lake: Lake, own: Sequence[str] | None) -> list[str]:
    """Return the instances of a client, or all that are in the table `instances` or have files, but no retired ones."""
    found = sorted(load_instances(lake).stored.union(_listed_instances(lake))) if own is None else own
    return [*filter(lake.retired.marks().is_in_numbers, found)]


def refused_instances(lake: Lake, requested: Sequence[str] | None, *, own: Sequence[str] | None) -> set[str]:
    """Return the requested instances that are retired, or neither have files nor are in the table `instances`.

    A client with instances of its `own` may request all of them, unless all are retired, before they have files.
    """
    if not requested:
        return set()
    retired = set(requested) - lake.retired.marks().in_numbers(requested)
    if own is not None:
        return set() if requested == own and len(retired) < len(own) else retired
    unknown = set(requested).difference(_listed_instances(lake), retired)
    if unknown:  # the table may be older than the files, whose listing takes longer
        unknown -= load_instances(lake).stored
    return unknown | retired


def _listed_instances(lake: Lake) -> list[str]:
    stored = stored_instances(lake)
    return [] if stored is None else stored["instance_id"].to_pylist()


# Rows


def write_rows(
    rows: Rows, lake: Lake, state: LakeState, snapshots: Snapshots, *, memory_gb: float
) -> tuple[Path, bytes]:
    """Write the rows of a query; return the file and the version of the rows.

    Each file is read by one access: DuckDB would open a local file twice, and a file that is replaced in between could
    be read as a mixture of two. If files are replaced before they are read, the rows are of a version of their own.
    """

    def is_unchanged() -> bool:
        return _version_of_files(lake, rows.table, state.partitions, state.marks) == state.version

    with open_database(lake, memory_gb=memory_gb, spill_directory=str(snapshots.folder)) as database:
        if lake.storage.native_path("") is not None:
            database = LakeDatabase(lake, database.connection, is_confined=True)
        try:
            database.add_view(rows.table, state.partitions)
            database.connection.execute(
                "CREATE TABLE retired AS SELECT unnest(?::VARCHAR[]) AS instance_id", [[*state.marks.retired]]
            )
            database.connection.execute(render("macros.sql", {}))
            database.connection.create_function("extend", _extended, ["VARCHAR", "VARCHAR"], "VARCHAR")
            file = snapshots.write(rows.sql, database.connection)
        except (duckdb.Error, OSError) as error:
            if "Out of Memory" in str(error):
                detail = "the query needs more memory than --memory-gb allows: query fewer days, or raise it"
                raise ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, detail) from error
            if not is_unchanged():
                raise LakeChanged from None
            raise _unreadable(error, database) from error
    return file, state.version if is_unchanged() else secrets.token_bytes(_DIGEST_BYTES)


def _unreadable(error: Exception, database: LakeDatabase) -> ProblemError:
    """Return why rows cannot be read; reads all files."""
    detail, cause = "the lake cannot be read: see the log of the server", str(error).strip().partition("\n")[0]
    for name, failures in database.find_unreadable_files().items():
        partition, failure = next(iter(failures.items()))
        what = f"the file of {partition} in {name}" if partition else f"the table {name}"
        detail, cause = f"{what} cannot be read: materialize it again", str(failure)
    _logger.error("The lake cannot be read: %s", cause)
    return ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, detail)


def _json_time(column: str) -> str:
    """Return SQL for a time in milliseconds, as in the samples of docs/api.md, or in microseconds if it has them."""
    return (
        f"strftime({column}, CASE WHEN microsecond({column}) % 1000 = 0 THEN '%Y-%m-%dT%H:%M:%S.%gZ'"
        " ELSE '%Y-%m-%dT%H:%M:%S.%fZ' END)"
    )


_FIELDS: Mapping[str, str] = {
    "campaignId": "campaign_id",
    "contentImageUrl": "content_image_url",
    "contentType": "content_type",
    "contentUrl": "content_url",
    "creatorId": "creator_id",
    "instanceId": "instance_id",
    "postId": "post_id",
    "postDate": _json_time("post_date"),
}
# A paged response has all of them: those that are not in LATER_METRICS are in `extra`.
_DEFAULT_NAMES = [metric.api_name for metric in DEFAULT_METRICS]
_PROFILE = "creatorProfile"
_PROFILE_FIELDS: Mapping[str, str] = {
    "contentType": "creator_content_type",
    "fullName": "creator_full_name",
    "handleName": "creator_handle_name",
    "profileImage": "creator_profile_image",
    "profileLink": "creator_profile_link",
}


@lru_cache(maxsize=256)  # rendered once for all pages of a query
def post_rows(query: PostsQuery) -> Rows:
    """Return the posts that a query selects, in its order."""
    # Those that are served, those that rows can be sorted by, and parts of rates.
    metrics = [each for each in METRICS if each in DEFAULT_METRICS or each.api_name in (query.metrics or ())]
    table = _table_of(query, metrics)
    sql = _TEMPLATES.get_template("posts.sql").render(
        table=table.name,
        # Whether a post may have several rows, of which the sums are served.
        sums_days=query.basis is DateBasis.PERFORMANCE_DATE and query.end > query.start,
        row_conditions=_conditions(campaign_id=query.campaign_ids),
        post_conditions=_conditions(**{_PLATFORM: query.platforms, "content_type": query.content_types}),
        fields=_fields(query),
        # Fields that may be in `extra`, too.
        merged=[_PROFILE, *_DEFAULT_NAMES] if query.metrics is None else [_PROFILE, METRICS_MEMBER],
        sort_column=_COLUMNS.get(query.sort_property or "", "post_date"),
        sort_direction=query.sort_direction,
        channels=[(channel.value, raw_column(channel, "")) for channel in CHANNELS],
        unit_costs=_UNIT_COSTS,
        counts=[metric.column for metric in metrics if metric.kind is Kind.COUNT],
        amounts=[metric.column for metric in metrics if metric.kind in (Kind.MONEY, Kind.TIME)],
        rates=[metric.column for metric in metrics if metric.kind is Kind.RATE and metric in DEFAULT_METRICS],
        # Not known for several days.
        unknown=[
            (metric.column, "BIGINT" if metric.kind.is_integer else "DOUBLE")
            for metric in metrics
            if not metric.kind.adds_up_over_days and metric not in DEFAULT_METRICS
        ],
    )
    return Rows(table=table, sql=sql, instance_ids=query.instance_ids, days=(query.start, query.end))


def _table_of(query: MetricsQuery, metrics: Iterable[Metric]) -> Table:
    (raw_table,) = (table for table in POSTS_TABLES if table.date_basis is query.basis)
    return Table(raw_table.name, post_columns(metrics))


def _fields(query: PostsQuery) -> list[tuple[str, str]]:
    has_profile = f"coalesce({', '.join(_PROFILE_FIELDS.values())}) IS NOT NULL"
    fields = {**_FIELDS, _PROFILE: f"CASE WHEN {has_profile} THEN {_object(_PROFILE_FIELDS)} END"}
    if query.metrics is None:
        return sorted((fields | {metric.api_name: metric.column for metric in DEFAULT_METRICS}).items())
    requested = {name: _COLUMNS[name] for name in query.metrics}
    return [*sorted(fields.items()), (METRICS_MEMBER, _object(requested))]


def _extended(row: str, unknown: str) -> str:
    """Return a post as JSON with more fields. A field that is an object in both gets the members of both."""
    post: dict[str, Any] = json.loads(row)
    for name, value in json.loads(unknown).items():
        known = post.get(name)
        if name == _PROFILE and known is None:
            known = dict.fromkeys(_PROFILE_FIELDS)
        if name not in post:
            post[name] = value
        elif isinstance(known, dict) and isinstance(value, dict):
            post[name] = known | value
    return json.dumps(post, separators=(",", ":"))


def _object(members: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"'{name}': {expression}" for name, expression in members.items()) + "}"


# What the parameter selects, by the API's documentation. The column `platform` also has networks of types that are only
# read, such as `image`.
_PLATFORM = "split_part(content_type, '_', 1)"


def _conditions(**wanted: Sequence[int | str] | None) -> list[str]:
    """Return the conditions that columns have one of some values; none for a column of which all are wanted."""
    conditions = []
    for column, values in wanted.items():
        # A query may have numbers beyond int64, which match nothing.
        literals = [
            literal(value) if isinstance(value, str) else str(value)
            for value in values or ()
            if isinstance(value, str) or value.bit_length() < 64
        ]
        if values is not None:
            conditions.append(f"{column} IN ({', '.join(literals)})" if literals else "false")
    return conditions


_CAMPAIGN_FIELDS: Mapping[str, str] = {
    "campaignId": "campaign_id",
    "campaignName": "campaign_name",
    "description": "description",
    "firstPostDate": _json_time("first_post_date"),
    "instanceId": "instance_id",
    "lastPostDate": _json_time("last_post_date"),
    "startDate": _json_time("start_date"),
    "status": "status",
}


def campaign_rows(query: ListQuery) -> Rows:
    """Return the campaigns of some instances that the API listed when the table was last refreshed."""
    conditions = ["listed_now", "instance_id NOT IN (FROM retired)", *_conditions(instance_id=query.instance_ids)]
    sql = f"""
        SELECT CASE WHEN extra IS NULL THEN json ELSE json[:-2] || ',' || extra[2:] END AS "{ROW}"
        FROM (SELECT *, CAST(to_json({_object(_CAMPAIGN_FIELDS)}) AS VARCHAR) AS json FROM {CAMPAIGNS_TABLE})
        WHERE {" AND ".join(conditions)}
        ORDER BY instance_id, campaign_id
    """
    table = Table(CAMPAIGNS_TABLE, CAMPAIGN_COLUMNS, is_partitioned=False)
    return Rows(table=table, sql=sql, instance_ids=query.instance_ids)


def total_rows(query: MetricsQuery, metrics: Iterable[Metric]) -> Rows:
    """Return the totals of the posts that a query selects, of which each counts once: one row, or one for each bucket.

    What does not follow from posts by day is null: numbers of people, costs, returns and links.
    """
    totals = {metric.api_name: _total(metric) for metric in metrics}
    members = {name: totals[name] for name in query.metrics or totals}
    fields = members if query.metrics is None else {METRICS_MEMBER: _object(members)}
    bucket, grouping = "NULL", "HAVING true"  # one row, also if no total is a sum
    if isinstance(query, OverTimeQuery):
        bucket, grouping = f"date_trunc('{query.granularity}', date)", "GROUP BY bucket ORDER BY bucket"
        last = f"bucket + INTERVAL 1 {query.granularity} - INTERVAL 1 DAY"
        fields = {
            "startDate": f"CAST(greatest(bucket, DATE '{query.start}') AS DATE)",
            "endDate": f"CAST(least({last}, DATE '{query.end}') AS DATE)",
            **fields,
        }
    table = _table_of(query, METRICS)
    conditions = _conditions(
        **{"campaign_id": query.campaign_ids, _PLATFORM: query.platforms, "content_type": query.content_types}
    )
    sql = f"""
        WITH posts AS (
            SELECT *, {bucket} AS bucket FROM {table.name}
            WHERE {" AND ".join(conditions) or "true"}
            QUALIFY row_number() OVER (PARTITION BY date, instance_id, post_id ORDER BY campaign_id) = 1
        )
        SELECT CAST(to_json({_object(fields)}) AS VARCHAR) AS "{ROW}" FROM posts {grouping}
    """
    return Rows(table=table, sql=sql, instance_ids=query.instance_ids, days=(query.start, query.end))


def _total(metric: Metric) -> str:
    """Return SQL for a metric of posts together, each of which has a row for each day."""
    column = metric.column
    if metric.api_name == "postsCount":
        return "count(DISTINCT (instance_id, post_id))"
    if metric.api_name in ("engagementRate", "paidEngagementRate"):
        prefix = column.removesuffix("engagement_rate")
        both = f"FILTER ({prefix}engagements IS NOT NULL AND {prefix}impressions IS NOT NULL)"
        return f"round(rate(sum({prefix}engagements) {both}, sum({prefix}impressions) {both}), 2)"
    if metric not in METRICS or not metric.kind.adds_up_over_days:
        return "NULL"
    if metric.kind is Kind.COUNT:
        return f"TRY_CAST(sum({column}) AS BIGINT)"
    return f"CAST(sum(TRY_CAST({column} AS DECIMAL(38, 6))) AS DOUBLE)"
