"""The checks of each raw asset, and the check that compares the two raw assets."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime

import dagster as dg
import numpy as np
import pyarrow as pa

from later_reporting_dagster.contract.days import day_ranges, expected_days
from later_reporting_dagster.defs.checks import NEWEST_DUE_DAY, WARN, Check, CheckScope, build_asset_checks, join_first
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.defs.settings import DefinitionSettings
from later_reporting_dagster.defs.settled_posts import TOLERANCE_PERCENT, SettledPostsComparison, compare_settled_posts
from later_reporting_dagster.ingest.data_quality import (
    count_duplicate_keys,
    count_inconsistent_rates,
    count_rows_outside_partition,
    count_unknown_fields,
)
from later_reporting_dagster.ingest.dimensions import known_instances
from later_reporting_dagster.ingest.missing_files import describe_missing, missing_days
from later_reporting_dagster.lake import POST_KEY, POSTS_SCHEMA, FileDamaged, Lake, Partition
from later_reporting_dagster.lake.storage import map_concurrently
from later_reporting_dagster.lake.tables import POST_METRICS_DAILY, POSTS_PUBLISHED, RawTable

ROWS_UNIQUE = Check(name="rows_unique_by_key", description="No two rows share instance, campaign and post.")
ROWS_BELONG = Check(
    name="rows_belong_to_partition", description="Each file can be read, and its rows belong to its instance and day."
)
RATES_AGREE = Check(
    name="rates_agree_with_counts",
    description="Engagement rate, CPE and CPM agree with the counts in the same row, within rounding.",
    severity=WARN,
)
NO_UNKNOWN_FIELDS = Check(
    name="no_unknown_fields",
    description="The API returned no unknown fields and no unknown content types.",
    severity=WARN,
)
QUARANTINE_EMPTY = Check(
    name="quarantine_is_empty", description="The API returned no invalid rows.", severity=WARN, nothing="Empty"
)
EVERY_INSTANCE = Check(
    name="every_instance_is_present",
    description="Every day from the start date to the newest day that is due has a file of every instance.",
    nothing="No instance is known yet",
    is_daily=True,
)
DUE_DAY = Check(
    name=NEWEST_DUE_DAY,
    description="The newest day that is due has a file of every instance.",
    nothing="No day is due yet",
    is_daily=True,
)
DAYS_ADD_UP = Check(
    name="days_add_up_to_metrics_to_date",
    description="The days of post_metrics_daily add up to the metrics to date, for posts old enough to be settled.",
    severity=WARN,
    nothing=(
        f"No post is settled yet. A post is settled when {POST_METRICS_DAILY.name} has every day since its publication,"
        f" at least as many as are restated, and {POSTS_PUBLISHED.name} has the day of its publication"
    ),
    is_daily=True,
)
# The checks that count problems in files, and the problems.
_REPEATED, _DAMAGED = "rows repeat a key", "files cannot be read"
_MISPLACED, _CONTRADICTORY = "rows belong to another file", "rates contradict their counts"
_PROBLEMS_IN_FILES: Mapping[Check, Sequence[str]] = {
    ROWS_UNIQUE: [_REPEATED],
    ROWS_BELONG: [_DAMAGED, _MISPLACED],
    RATES_AGREE: [_CONTRADICTORY],
}
_CHECKS_OF_FILES = (*_PROBLEMS_IN_FILES, NO_UNKNOWN_FIELDS)
# Most files have about twenty rows, and inspecting one takes as long as inspecting many together.
_FILES_TOGETHER = 64


def build_posts_checks(raw_table: RawTable, settings: DefinitionSettings) -> dg.AssetChecksDefinition:
    """Return the checks of a raw asset. The two for missing files look at all days in any run, and also run daily."""

    def evaluate(later: LaterReportingResource, scope: CheckScope) -> Iterator[dg.AssetCheckResult]:
        lake = later.lake()
        if scope.selected & {check.name for check in _CHECKS_OF_FILES}:
            partitions = [each for each in lake.partitions(raw_table.name) if scope.includes(each.day)]
            yield from evaluate_rows(lake, raw_table, partitions)
        if QUARANTINE_EMPTY.name in scope.selected:
            yield evaluate_quarantine(raw_table.name, lake=lake)
        instances = known_instances(lake, configured=later.configured_instances())
        yield from evaluate_files(lake, raw_table.name, instances=instances, settings=settings)

    checks = (*_CHECKS_OF_FILES, QUARANTINE_EMPTY, EVERY_INSTANCE, DUE_DAY)
    return build_asset_checks(raw_table.name, checks, evaluate=evaluate, settings=settings)


def build_settled_posts_check(settings: DefinitionSettings) -> dg.AssetChecksDefinition:
    """Return the check that compares the two raw assets, run daily at the due hour."""

    def evaluate(later: LaterReportingResource, scope: CheckScope) -> Iterator[dg.AssetCheckResult]:
        settled = compare_settled_posts(
            later.lake(),
            settled_after_days=settings.restate_days,
            memory_gb=later.memory_gb,
            published=scope.partitions,
        )
        yield evaluate_settled_posts(settled)

    return build_asset_checks(
        POSTS_PUBLISHED.name,
        [DAYS_ADD_UP],
        evaluate=evaluate,
        settings=settings,
        step="settlement",
        deps=[POST_METRICS_DAILY.name],
    )


def evaluate_rows(lake: Lake, raw_table: RawTable, partitions: Sequence[Partition]) -> Iterator[dg.AssetCheckResult]:
    """Read files, and yield the results of the checks of their rows.

    The daily files are read, never their compacted copies, because a damaged file must fail a check.
    """
    found = {problem: Counter[Partition]() for problems in _PROBLEMS_IN_FILES.values() for problem in problems}
    unknown: dict[Partition, Mapping[str, int]] = {}
    read = {"files": 0, "rows": 0}
    for start in range(0, len(partitions), _FILES_TOGETHER):
        files = _read_files(lake, raw_table, batch := partitions[start : start + _FILES_TOGETHER])
        found[_DAMAGED].update({*batch} - {partition for partition, _ in files})
        read["files"] += len(files)
        read["rows"] += sum(posts.num_rows for _, posts in files)
        if _has_no_problem(files, raw_table):
            continue
        for partition, posts in files:
            found[_REPEATED][partition] += count_duplicate_keys(posts)
            found[_MISPLACED][partition] += count_rows_outside_partition(
                [(partition, posts)], date_basis=raw_table.date_basis
            )
            found[_CONTRADICTORY][partition] += sum(count_inconsistent_rates(posts).values())
            if names := count_unknown_fields(posts):
                unknown[partition] = names
    otherwise = f"All {read['rows']} rows of {read['files']} files"
    for check, problems in _PROBLEMS_IN_FILES.items():
        counts = {problem: +found[problem] for problem in problems if found[problem].total()}  # + drops zeros
        yield check.result(
            "; ".join(f"{each.total()} {problem}, in {_names(each)}" for problem, each in counts.items()),
            otherwise=otherwise,
            looked_at=read,
            metadata={"found": sum(each.total() for each in counts.values())},
        )
    fields = sum((Counter(names) for names in unknown.values()), Counter[str]())
    yield NO_UNKNOWN_FIELDS.result(
        f"Unknown fields or content types: {join_first(sorted(fields))}, in {_names(unknown)}" if fields else "",
        otherwise=otherwise,
        looked_at=read,
        metadata={"unknown": dg.MetadataValue.json(dict(sorted(fields.items())))} if fields else {},
    )


def _read_files(lake: Lake, raw_table: RawTable, partitions: Sequence[Partition]) -> list[tuple[Partition, pa.Table]]:
    """Read files one by one; leave out those that are damaged."""

    def read(partition: Partition) -> pa.Table | None:
        try:
            return lake.read(raw_table.name, [partition], schema=POSTS_SCHEMA)
        except FileDamaged:
            return None

    tables = zip(partitions, map_concurrently(read, partitions), strict=True)
    return [(partition, posts) for partition, posts in tables if posts is not None]


def _has_no_problem(files: Sequence[tuple[Partition, pa.Table]], raw_table: RawTable) -> bool:
    """Inspect files all together, which is fast."""
    if not files:
        return True
    posts = pa.concat_tables([rows for _, rows in files])
    file_number = pa.array(np.repeat(np.arange(len(files)), [rows.num_rows for _, rows in files]))
    keys = posts.select(list(POST_KEY)).append_column("file", file_number)
    is_unique = keys.group_by(keys.column_names).aggregate([]).num_rows == keys.num_rows
    is_inside = not count_rows_outside_partition(files, date_basis=raw_table.date_basis)
    return is_unique and is_inside and not count_inconsistent_rates(posts) and not count_unknown_fields(posts)


def evaluate_quarantine(table_name: str, *, lake: Lake) -> dg.AssetCheckResult:
    """Evaluate whether a table has rows in quarantine. The metadata has their number by reason."""
    reasons = Counter(row.reason for row in lake.quarantine.rows(table_name))
    count = reasons.total()
    return QUARANTINE_EMPTY.result(
        f"{count} rows in quarantine: see `later-reporting quarantine`" if count else "",
        otherwise="Empty",
        looked_at={"rows": count},
        metadata={"reasons": dg.MetadataValue.json(dict(reasons))} if reasons else {},
    )


def evaluate_files(
    lake: Lake, table_name: str, *, instances: Sequence[str], settings: DefinitionSettings
) -> Iterator[dg.AssetCheckResult]:
    """Yield the results of the checks for missing files, from a listing of all files.

    Args:
        lake: the lake.
        table_name: the raw table.
        instances: the instances that should have files.
        settings: the settings of the component.
    """
    present = lake.partitions(table_name)
    days = expected_days(datetime.now(UTC), start_date=settings.start_date, due_hour_utc=settings.due_hour_utc)
    missing = missing_days(days, instances, present)
    yield evaluate_missing_files(missing, days=days, instances=instances)
    yield evaluate_newest_due_day(missing, days=days, instances=instances)


def evaluate_missing_files(
    missing: Mapping[str, Sequence[date]], *, days: Sequence[date], instances: Sequence[str]
) -> dg.AssetCheckResult:
    """Evaluate whether every instance has a file of every expected day. The metadata has the missing days."""
    ranges = {name: day_ranges(lacking) for name, lacking in missing.items()}
    next_step = "Materialize these days; set `only_missing` in the run config to fetch nothing else"
    return EVERY_INSTANCE.result(
        f"{describe_missing(missing, instances=len(instances))}. {next_step}" if missing else "",
        otherwise=f"All {len(instances)} instances on {len(days)} days",
        looked_at={"instances": len(instances), "days": len(days) if instances else 0},
        metadata={
            "missing_files": sum(map(len, missing.values())),
            **({"missing": dg.MetadataValue.json(ranges)} if missing else {}),
        },
    )


def evaluate_newest_due_day(
    missing: Mapping[str, Sequence[date]], *, days: Sequence[date], instances: Sequence[str]
) -> dg.AssetCheckResult:
    """Evaluate whether the newest expected day has a file of each instance; if none is known, it has no file."""
    due = days[-1] if days else None
    lacking = [name for name, days_of_instance in missing.items() if days_of_instance[-1] == due]
    is_complete = not due or (bool(instances) and not lacking)
    return DUE_DAY.result(
        "" if is_complete else f"{due} is missing{f' for {join_first(lacking)}' if lacking else ''}: materialize it",
        otherwise=f"{due} has files of all {len(instances)} instances",
        looked_at={"instances": len(instances) if due else 0},
        metadata={"due_day": str(due), "missing_instances": len(lacking)},
    )


def evaluate_settled_posts(settled: SettledPostsComparison) -> dg.AssetCheckResult:
    """Evaluate whether the days of settled posts add up to their metrics to date. The metadata has each difference."""
    differing = [name for name, sums in settled.sums.items() if not sums.agree]
    percents = {f"difference_percent/{name}": sums.difference_percent for name, sums in settled.sums.items()}
    sums = {name: {"sum_of_days": sums.sum_of_days, "to_date": sums.to_date} for name, sums in settled.sums.items()}
    return DAYS_ADD_UP.result(
        f"{', '.join(differing)} of {settled.posts} settled posts differ by over {TOLERANCE_PERCENT:g} %"
        if differing
        else "",
        otherwise=f"The days of {settled.posts} settled posts add up to their metrics to date",
        looked_at={"posts": settled.posts},
        metadata={
            "posts_that_differ": settled.posts_that_differ,
            **{name: round(percent, 6) for name, percent in percents.items() if percent is not None},
            "sums": dg.MetadataValue.json(sums),
        },
    )


def _names(partitions: Collection[Partition]) -> str:
    return join_first([str(partition) for partition in sorted(partitions)])
