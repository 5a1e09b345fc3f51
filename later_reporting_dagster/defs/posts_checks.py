"""The checks of each raw asset, and the check that compares the two raw assets."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa

from later_reporting_dagster.contract.days import day_ranges, expected_days
from later_reporting_dagster.defs.checks import NEWEST_DUE_DAY, CheckScope, build_asset_checks, check_result, join_first
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.defs.settings import DefinitionSettings
from later_reporting_dagster.ingest.data_quality import (
    count_duplicate_keys,
    count_inconsistent_rates,
    count_rows_outside_partition,
    count_unknown_fields,
)
from later_reporting_dagster.ingest.instance_dimension import known_instances
from later_reporting_dagster.ingest.missing_files import describe_missing, missing_days
from later_reporting_dagster.ingest.settled_posts import (
    TOLERANCE_PERCENT,
    SettledPostsComparison,
    compare_settled_posts,
)
from later_reporting_dagster.lake import POST_KEY, POSTS_SCHEMA, FileDamaged, Lake, Partition
from later_reporting_dagster.lake.concurrency import map_concurrently
from later_reporting_dagster.lake.raw_tables import POST_METRICS_DAILY, POSTS_PUBLISHED, RawTable

ROWS_UNIQUE = "rows_unique_by_key"
ROWS_BELONG = "rows_belong_to_partition"
RATES_AGREE = "rates_agree_with_counts"
NO_UNKNOWN_FIELDS = "no_unknown_fields"
QUARANTINE_EMPTY = "quarantine_is_empty"
EVERY_INSTANCE = "every_instance_is_present"
DAYS_ADD_UP = "days_add_up_to_metrics_to_date"

POSTS_CHECKS: Mapping[str, str] = {
    ROWS_UNIQUE: "No two rows share instance, campaign and post.",
    ROWS_BELONG: "Each file can be read, and its rows belong to its instance and day.",
    RATES_AGREE: "Engagement rate, CPE and CPM agree with the counts in the same row, within rounding.",
    NO_UNKNOWN_FIELDS: "The API returned no unknown fields and no unknown content types.",
    QUARANTINE_EMPTY: "The API returned no invalid rows.",
    EVERY_INSTANCE: "Every day from the start date to the newest day that is due has a file of every instance.",
    NEWEST_DUE_DAY: "The newest day that is due has a file of every instance.",
}
SETTLED_POSTS_CHECKS: Mapping[str, str] = {
    DAYS_ADD_UP: ("The days of post_metrics_daily add up to the metrics to date, for posts old enough to be settled.")
}
_WARN, _ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR
# The checks that count problems in files: the severity of a failure, and the problems.
_REPEATED, _DAMAGED = "rows repeat a key", "files cannot be read"
_MISPLACED, _CONTRADICTORY = "rows belong to another file", "rates contradict their counts"
_CHECKS_OF_FILES: Mapping[str, tuple[dg.AssetCheckSeverity, Sequence[str]]] = {
    ROWS_UNIQUE: (_ERROR, [_REPEATED]),
    ROWS_BELONG: (_ERROR, [_DAMAGED, _MISPLACED]),
    RATES_AGREE: (_WARN, [_CONTRADICTORY]),
}
# Most files have about twenty rows, and inspecting one takes as long as inspecting many together.
_FILES_TOGETHER = 64


def build_posts_checks(raw_table: RawTable, settings: DefinitionSettings) -> dg.AssetChecksDefinition:
    """Return the checks of a raw asset. The two for missing files look at all days in any run, and also run daily."""

    def evaluate(later: LaterReportingResource, scope: CheckScope) -> Iterator[dg.AssetCheckResult]:
        lake = later.lake()
        if scope.selected & {*_CHECKS_OF_FILES, NO_UNKNOWN_FIELDS}:
            partitions = [each for each in lake.partitions(raw_table.name) if scope.includes(each.day)]
            yield from evaluate_rows(lake, raw_table, partitions)
        if QUARANTINE_EMPTY in scope.selected:
            yield evaluate_quarantine(raw_table.name, lake=lake)
        instances = known_instances(lake, configured=later.configured_instances())
        yield from evaluate_files(lake, raw_table.name, instances=instances, settings=settings)

    return build_asset_checks(
        raw_table.name, POSTS_CHECKS, evaluate=evaluate, settings=settings, daily=[EVERY_INSTANCE, NEWEST_DUE_DAY]
    )


def build_settled_posts_check(settings: DefinitionSettings) -> dg.AssetChecksDefinition:
    """Return the check that compares the two raw assets, run daily at the due hour."""
    settled_after_days = settings.restate_days

    def evaluate(later: LaterReportingResource, scope: CheckScope) -> Iterator[dg.AssetCheckResult]:
        settled = compare_settled_posts(
            later.lake(), settled_after_days=settled_after_days, memory_gb=later.memory_gb, published=scope.partitions
        )
        yield evaluate_settled_posts(settled, settled_after_days=settled_after_days)

    return build_asset_checks(
        POSTS_PUBLISHED.name,
        SETTLED_POSTS_CHECKS,
        evaluate=evaluate,
        settings=settings,
        daily=[DAYS_ADD_UP],
        step="settlement",
        deps=[POST_METRICS_DAILY.name],
    )


def evaluate_rows(lake: Lake, raw_table: RawTable, partitions: Sequence[Partition]) -> Iterator[dg.AssetCheckResult]:
    """Read files, and yield the results of the checks of their rows.

    The daily files are read, never their compacted copies, because a damaged file must fail a check.
    """
    found = {problem: Counter[Partition]() for _, problems in _CHECKS_OF_FILES.values() for problem in problems}
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
    for check, (severity, problems) in _CHECKS_OF_FILES.items():
        counts = {problem: +found[problem] for problem in problems if found[problem].total()}  # + drops zeros
        yield check_result(
            check,
            "; ".join(f"{each.total()} {problem}, in {_names(each)}" for problem, each in counts.items()),
            otherwise=otherwise,
            looked_at=read,
            metadata={"found": sum(each.total() for each in counts.values())},
            severity=severity,
        )
    fields = sum((Counter(names) for names in unknown.values()), Counter[str]())
    yield check_result(
        NO_UNKNOWN_FIELDS,
        f"Unknown fields or content types: {join_first(sorted(fields))}, in {_names(unknown)}" if fields else "",
        otherwise=otherwise,
        looked_at=read,
        metadata={"unknown": dg.MetadataValue.json(dict(sorted(fields.items())))} if fields else {},
        severity=_WARN,
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
    return dg.AssetCheckResult(
        check_name=QUARANTINE_EMPTY,
        passed=not count,
        description=f"{count} rows in quarantine: see `later-reporting quarantine`" if count else "Empty",
        metadata={"rows": count, **({"reasons": dg.MetadataValue.json(dict(reasons))} if reasons else {})},
        severity=_WARN,
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
    of_due_day = [name for name, lacking in missing.items() if lacking[-1] == days[-1]]
    yield evaluate_newest_due_day(days, instances=instances, missing=of_due_day)


def evaluate_missing_files(
    missing: Mapping[str, Sequence[date]], *, days: Sequence[date], instances: Sequence[str]
) -> dg.AssetCheckResult:
    """Evaluate whether every instance has a file of every day. The metadata has the missing days by instance.

    Args:
        missing: the missing days by instance.
        days: the days that every instance should have a file for.
        instances: the instances that should have files.
    """
    ranges = {name: day_ranges(lacking) for name, lacking in missing.items()}
    return check_result(
        EVERY_INSTANCE,
        f"{describe_missing(missing, instances=len(instances))}. Materialize these days; set `only_missing` in the run"
        " config to fetch nothing else"
        if missing
        else "",
        otherwise=f"All {len(instances)} instances on {len(days)} days",
        looked_at={"instances": len(instances), "days": len(days) if instances else 0},
        nothing="No instance is known yet",
        metadata={
            "missing_files": sum(map(len, missing.values())),
            **({"missing": dg.MetadataValue.json(ranges)} if missing else {}),
        },
    )


def evaluate_newest_due_day(
    days: Sequence[date], *, instances: Sequence[str], missing: Sequence[str]
) -> dg.AssetCheckResult:
    """Evaluate whether the newest of the expected days has a file of each instance.

    Args:
        days: the days that every instance should have a file for.
        instances: the instances that should have files; if none is known, no day has any.
        missing: the instances that lack a file of the newest day.
    """
    due = days[-1] if days else None
    is_complete = not due or (bool(instances) and not missing)
    return check_result(
        NEWEST_DUE_DAY,
        "" if is_complete else f"{due} is missing{f' for {join_first(missing)}' if missing else ''}: materialize it",
        otherwise=f"{due} has files of all {len(instances)} instances",
        looked_at={"instances": len(instances) if due else 0},
        nothing="No day is due yet",
        metadata={"due_day": str(due), "missing_instances": len(missing)},
    )


def evaluate_settled_posts(settled: SettledPostsComparison, *, settled_after_days: int) -> dg.AssetCheckResult:
    """Evaluate whether the days of settled posts add up to their metrics to date. The metadata has each difference."""
    differing = [name for name, sums in settled.sums.items() if not sums.agree]
    metadata: dict[str, Any] = {"posts_that_differ": settled.posts_that_differ}
    for name, sums in settled.sums.items():
        if sums.difference_percent is not None:
            metadata[f"difference_percent/{name}"] = round(sums.difference_percent, 6)
    metadata["sums"] = dg.MetadataValue.json(
        {name: {"sum_of_days": sums.sum_of_days, "to_date": sums.to_date} for name, sums in settled.sums.items()}
    )
    return check_result(
        DAYS_ADD_UP,
        f"{', '.join(differing)} of {settled.posts} settled posts differ by over {TOLERANCE_PERCENT:g} %"
        if differing
        else "",
        otherwise=f"The days of {settled.posts} settled posts add up to their metrics to date",
        looked_at={"posts": settled.posts},
        nothing=(
            f"No post is settled yet. A post is settled when {POST_METRICS_DAILY.name} has the day of its publication"
            f" and every later day, at least {settled_after_days} of them, and {POSTS_PUBLISHED.name} has the"
            " day of its publication"
        ),
        metadata=metadata,
        severity=_WARN,
    )


def _names(partitions: Collection[Partition]) -> str:
    return join_first([str(partition) for partition in sorted(partitions)])
