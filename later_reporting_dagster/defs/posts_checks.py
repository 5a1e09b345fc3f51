"""The checks of each raw asset, and the check that compares the two raw assets."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa

from later_reporting_dagster.contract.days import day_ranges, due_day
from later_reporting_dagster.defs.checks import NEWEST_DUE_DAY, build_asset_checks, join_first
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.defs.settings import DefinitionSettings
from later_reporting_dagster.ingest.data_quality import (
    count_duplicate_keys,
    count_inconsistent_rates,
    count_rows_outside_partition,
    count_unknown_fields,
)
from later_reporting_dagster.ingest.instance_dimension import known_instances
from later_reporting_dagster.ingest.raw_tables import POST_METRICS_DAILY, POSTS_PUBLISHED, RawTable
from later_reporting_dagster.ingest.settled_posts import (
    TOLERANCE_PERCENT,
    SettledPostsComparison,
    compare_settled_posts,
)
from later_reporting_dagster.lake import POST_KEY, POSTS_SCHEMA, FileDamaged, Lake, Partition

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
    EVERY_INSTANCE: "Every day in the lake has a file of every instance.",
    NEWEST_DUE_DAY: "The newest day that is due has a file of every instance.",
}
SETTLED_POSTS_CHECKS: Mapping[str, str] = {
    DAYS_ADD_UP: ("The days of post_metrics_daily add up to the metrics to date, for posts old enough to be settled.")
}
_CHECKS_OF_ROWS = {ROWS_UNIQUE, ROWS_BELONG, RATES_AGREE, NO_UNKNOWN_FIELDS}
_WARN = dg.AssetCheckSeverity.WARN
# Most files have about twenty rows, and inspecting one takes as long as inspecting many together.
_FILES_TOGETHER = 64

# The instances that have a file, by day.
InstancesByDay = Mapping[date, Collection[str]]


def build_posts_checks(raw_table: RawTable, settings: DefinitionSettings) -> dg.AssetChecksDefinition:
    """Return the checks of a raw asset over all of its partitions; the two checks for missing files also run daily."""

    def evaluate(later: LaterReportingResource, selected: Set[str]) -> Iterator[dg.AssetCheckResult]:
        lake = later.lake()
        inspector = PostsInspector(raw_table)
        instances_by_day: dict[date, set[str]] = {}
        read_rows = bool(_CHECKS_OF_ROWS & selected)
        for partition in lake.partitions(raw_table.name):
            instances_by_day.setdefault(partition.day, set()).add(str(partition.instance_id))
            if read_rows:
                # Read each daily file, never its compacted copy, because a damaged file must fail a check.
                try:
                    inspector.add(partition, lake.read(raw_table.name, [partition], schema=POSTS_SCHEMA))
                except FileDamaged:
                    inspector.damaged[partition] = 1
        return evaluate_posts_checks(
            inspector,
            lake=lake,
            instances=known_instances(lake, configured=later.configured_instances()),
            instances_by_day=instances_by_day,
            due_hour_utc=settings.due_hour_utc,
        )

    return build_asset_checks(
        raw_table.name, POSTS_CHECKS, evaluate=evaluate, settings=settings, daily=[EVERY_INSTANCE, NEWEST_DUE_DAY]
    )


def build_settled_posts_check(settings: DefinitionSettings) -> dg.AssetChecksDefinition:
    """Return the check that compares the two raw assets, run daily at the due hour."""
    settled_after_days = settings.restate_days

    def evaluate(later: LaterReportingResource, _selected: Set[str]) -> Iterator[dg.AssetCheckResult]:
        settled = compare_settled_posts(
            later.lake(), settled_after_days=settled_after_days, memory_gb=later.memory_limit_gb()
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


class PostsInspector:
    """Counts problems in the rows of posts files. Files are added one at a time, and inspected in batches.

    Attributes:
        files: number of files added.
        rows: number of rows added.
        duplicates: rows whose key is not unique, by partition.
        outside: rows that belong to another partition, by partition.
        disagreements: rates that contradict their counts, by partition.
        damaged: 1 for each file that cannot be read.
        unknown: number of rows by unknown field, by partition.
    """

    def __init__(self, raw_table: RawTable) -> None:
        self.raw_table = raw_table
        self.files = 0
        self.rows = 0
        self.duplicates: Counter[Partition] = Counter()
        self.outside: Counter[Partition] = Counter()
        self.disagreements: Counter[Partition] = Counter()
        self.damaged: Counter[Partition] = Counter()
        self.unknown: dict[Partition, Mapping[str, int]] = {}
        self._pending: list[tuple[Partition, pa.Table]] = []

    def add(self, partition: Partition, posts: pa.Table) -> None:
        """Add the rows of one file."""
        self.files += 1
        self.rows += posts.num_rows
        self._pending.append((partition, posts))
        if len(self._pending) >= _FILES_TOGETHER:
            self.inspect()

    def inspect(self) -> None:
        """Inspect the files added since the last call: first all together, then each one if there is a problem."""
        files, self._pending = self._pending, []
        if not files:
            return
        posts = pa.concat_tables([rows for _, rows in files])
        file_number = pa.array(np.repeat(np.arange(len(files)), [rows.num_rows for _, rows in files]))
        keys = posts.select(list(POST_KEY)).append_column("file", file_number)
        is_unique = keys.group_by(keys.column_names).aggregate([]).num_rows == keys.num_rows
        date_basis = self.raw_table.date_basis
        is_inside = not count_rows_outside_partition(files, date_basis=date_basis)
        if is_unique and is_inside and not count_inconsistent_rates(posts) and not count_unknown_fields(posts):
            return
        for partition, rows in files:
            self.duplicates[partition] += count_duplicate_keys(rows)
            self.outside[partition] += count_rows_outside_partition([(partition, rows)], date_basis=date_basis)
            self.disagreements[partition] += sum(count_inconsistent_rates(rows).values())
            if unknown := count_unknown_fields(rows):
                self.unknown[partition] = unknown


def evaluate_posts_checks(
    inspector: PostsInspector,
    *,
    lake: Lake,
    instances: Sequence[str],
    instances_by_day: InstancesByDay,
    due_hour_utc: int,
) -> Iterator[dg.AssetCheckResult]:
    """Yield the results of `POSTS_CHECKS`.

    Args:
        inspector: the inspector, after all files to check were added.
        lake: the lake with the quarantine.
        instances: the instances that should have files.
        instances_by_day: the instances that have a file, by day.
        due_hour_utc: the hour at which the previous day is due.
    """
    inspector.inspect()
    read = {"files": inspector.files, "rows": inspector.rows}
    yield _evaluate_rows(ROWS_UNIQUE, {"rows repeat a key": inspector.duplicates}, read=read)
    unreadable_or_misplaced = {
        "files cannot be read": inspector.damaged,
        "rows belong to another file": inspector.outside,
    }
    yield _evaluate_rows(ROWS_BELONG, unreadable_or_misplaced, read=read)
    rates = {"rates contradict their counts": inspector.disagreements}
    yield _evaluate_rows(RATES_AGREE, rates, read=read, severity=_WARN)
    yield evaluate_unknown_fields(inspector.unknown, read)
    yield evaluate_quarantine(inspector.raw_table.name, lake=lake)
    yield evaluate_missing_files(instances_by_day, instances=instances)
    due = due_day(datetime.now(UTC), due_hour_utc=due_hour_utc)
    yield evaluate_newest_due_day(due, instances=instances, instances_by_day=instances_by_day)


def evaluate_unknown_fields(
    found: Mapping[Partition, Mapping[str, int]], read: Mapping[str, int]
) -> dg.AssetCheckResult:
    """Evaluate which unknown fields the API returned. Their values are stored in the column `extra`.

    Args:
        found: number of rows by field, by partition.
        read: number of files and rows that were read.
    """
    rows: Counter[str] = Counter()
    for fields in found.values():
        rows.update(fields)
    return dg.AssetCheckResult(
        check_name=NO_UNKNOWN_FIELDS,
        passed=not rows,
        description=(
            f"Unknown fields or content types: {join_first(sorted(rows))}, in {join_first(_names(found))}"
            if rows
            else f"All {read['rows']} rows of {read['files']} files"
        ),
        metadata={**read, **({"unknown": dg.MetadataValue.json(dict(sorted(rows.items())))} if rows else {})},
        severity=_WARN,
    )


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


def evaluate_missing_files(instances_by_day: InstancesByDay, *, instances: Sequence[str]) -> dg.AssetCheckResult:
    """Evaluate whether every day that has files has a file of each instance. The metadata has the missing days."""
    missing = {
        name: days
        for name in instances
        if (days := [day for day, present in sorted(instances_by_day.items()) if name not in present])
    }
    count = sum(map(len, missing.values()))
    ranges = {name: day_ranges(days) for name, days in missing.items()}
    return dg.AssetCheckResult(
        check_name=EVERY_INSTANCE,
        passed=not missing,
        description=(
            f"{count} files are missing: {join_first([f'{name}: {join_first(days)}' for name, days in ranges.items()])}"
            ". Materialize these days; set `only_missing` in the run config to fetch nothing else"
            if missing
            else f"All {len(instances)} instances on {len(instances_by_day)} days"
        ),
        metadata={
            "missing_files": count,
            "instances": len(instances),
            "days": len(instances_by_day),
            **({"missing": dg.MetadataValue.json(ranges)} if missing else {}),
        },
    )


def evaluate_newest_due_day(
    due: date, *, instances: Sequence[str], instances_by_day: InstancesByDay
) -> dg.AssetCheckResult:
    """Evaluate whether the day `due` has a file of each instance."""
    present = instances_by_day.get(due, ())
    missing = [name for name in instances if name not in present]
    passed = bool(present) and not missing
    return dg.AssetCheckResult(
        check_name=NEWEST_DUE_DAY,
        passed=passed,
        description=(
            f"{due} has files of all {len(instances)} instances"
            if passed
            else f"{due} is missing for {join_first(missing)}: materialize it"
            if missing
            else f"{due} is missing: materialize it"
        ),
        metadata={"due_day": str(due), "missing_instances": len(missing), "instances": len(instances)},
    )


def evaluate_settled_posts(settled: SettledPostsComparison, *, settled_after_days: int) -> dg.AssetCheckResult:
    """Evaluate whether the days of settled posts add up to their metrics to date. The metadata has each difference."""
    differing = [name for name, sums in settled.sums.items() if not sums.agree]
    if not settled.posts:
        description = (
            f"No post is settled yet. A post is settled when {POST_METRICS_DAILY.name} has the day of its publication"
            f" and every later day, at least {settled_after_days} of them, and {POSTS_PUBLISHED.name} has the"
            " day of its publication"
        )
    elif differing:
        description = f"{', '.join(differing)} of {settled.posts} settled posts differ by over {TOLERANCE_PERCENT:g} %"
    else:
        description = f"The days of {settled.posts} settled posts add up to their metrics to date"
    metadata: dict[str, Any] = {"posts": settled.posts, "posts_that_differ": settled.posts_that_differ}
    for name, sums in settled.sums.items():
        if sums.difference_percent is not None:
            metadata[f"difference_percent/{name}"] = round(sums.difference_percent, 6)
    metadata["sums"] = dg.MetadataValue.json(
        {name: {"sum_of_days": sums.sum_of_days, "to_date": sums.to_date} for name, sums in settled.sums.items()}
    )
    return dg.AssetCheckResult(
        check_name=DAYS_ADD_UP, passed=not differing, description=description, metadata=metadata, severity=_WARN
    )


def _evaluate_rows(
    check: str,
    problems: Mapping[str, Counter[Partition]],
    *,
    read: Mapping[str, int],
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
) -> dg.AssetCheckResult:
    """Evaluate a check that counts problems by partition.

    Args:
        check: name of the check.
        problems: the counts of each problem, by its description in the plural.
        read: number of files and rows that were read.
        severity: severity of a failure.
    """
    found = {what: +counts for what, counts in problems.items() if counts.total()}  # + drops zero counts
    count = sum(counts.total() for counts in found.values())
    return dg.AssetCheckResult(
        check_name=check,
        passed=not count,
        description=(
            "; ".join(f"{counts.total()} {what}, in {join_first(_names(counts))}" for what, counts in found.items())
            if found
            else f"All {read['rows']} rows of {read['files']} files"
        ),
        metadata={**read, "found": count},
        severity=severity,
    )


def _names(partitions: Collection[Partition]) -> list[str]:
    return [str(partition) for partition in sorted(partitions)]
