"""The checks of the raw assets, and the one that holds them against each other."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa

from later_reporting_dagster.contract.days import day_ranges, due_day
from later_reporting_dagster.defs.checks import NEWEST_DUE_DAY, checks_of, first_of
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.ingest.data_quality import (
    duplicate_keys,
    rates_that_disagree,
    rows_outside,
    unknown_fields,
)
from later_reporting_dagster.ingest.instance_dimension import known_instances
from later_reporting_dagster.ingest.raw_tables import POST_METRICS_DAILY, POSTS_PUBLISHED, Source
from later_reporting_dagster.ingest.settled_posts import TOLERANCE_PERCENT, Settlement, settlement
from later_reporting_dagster.lake import POST_KEY, POSTS_SCHEMA, Lake, Partition, PartitionDamaged

ROWS_UNIQUE = "rows_unique_by_key"
ROWS_BELONG = "rows_belong_to_partition"
RATES_AGREE = "rates_agree_with_counts"
NO_UNKNOWN_FIELDS = "no_unknown_fields"
QUARANTINE_EMPTY = "quarantine_is_empty"
EVERY_INSTANCE = "every_instance_is_present"
DAYS_ADD_UP = "days_add_up_to_metrics_to_date"

POSTS_CHECKS: Mapping[str, str] = {
    ROWS_UNIQUE: "No two rows share instance, campaign and post.",
    ROWS_BELONG: "Each row is of the instance and the day of its file.",
    RATES_AGREE: "Engagement rate, CPE and CPM agree with the counts beside them, within rounding.",
    NO_UNKNOWN_FIELDS: "The API returned no field and no content type that the contract does not know.",
    QUARANTINE_EMPTY: "The API returned no row that cannot be true.",
    EVERY_INSTANCE: "Every day in the lake has a file of every wanted instance.",
    NEWEST_DUE_DAY: "The newest day that is due has a file of every wanted instance.",
}
SETTLEMENT_CHECKS: Mapping[str, str] = {
    DAYS_ADD_UP: (
        "Of posts old enough to be settled, the days of later/post_metrics_daily add up to the metrics to date."
    )
}
_READING_ROWS = {ROWS_UNIQUE, ROWS_BELONG, RATES_AGREE, NO_UNKNOWN_FIELDS}
_WARN = dg.AssetCheckSeverity.WARN
# Most files have twenty rows, and to examine one takes as long as to examine many together.
_FILES_TOGETHER = 64

# By day, the instances that have a file.
Files = Mapping[date, Collection[str]]


class PostsFindings:
    """What is wrong in files of posts, which are added one at a time and examined together."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.files = 0
        self.rows = 0
        self.duplicates: Counter[Partition] = Counter()
        self.outside: Counter[Partition] = Counter()
        self.disagreements: Counter[Partition] = Counter()
        self.damaged: Counter[Partition] = Counter()
        self.unknown: dict[Partition, Mapping[str, int]] = {}
        self._added: list[tuple[Partition, pa.Table]] = []

    def add(self, partition: Partition, posts: pa.Table) -> None:
        """Add the rows of one file."""
        self.files += 1
        self.rows += posts.num_rows
        self._added.append((partition, posts))
        if len(self._added) >= _FILES_TOGETHER:
            self.examine()

    def examine(self) -> None:
        """Examine the files added since the last time: each by itself only when something is wrong in them together."""
        added, self._added = self._added, []
        if not added:
            return
        posts = pa.concat_tables([posts for _, posts in added])
        file = pa.array(np.repeat(np.arange(len(added)), [posts.num_rows for _, posts in added]))
        keys = posts.select(list(POST_KEY)).append_column("file", file)
        is_unique = keys.group_by(keys.column_names).aggregate([]).num_rows == keys.num_rows
        date_basis = self.source.date_basis
        is_inside = not rows_outside(added, date_basis=date_basis)
        if is_unique and is_inside and not rates_that_disagree(posts) and not unknown_fields(posts):
            return
        for partition, rows in added:
            self.duplicates[partition] += duplicate_keys(rows)
            self.outside[partition] += rows_outside([(partition, rows)], date_basis=date_basis)
            self.disagreements[partition] += sum(rates_that_disagree(rows).values())
            if unknown := unknown_fields(rows):
                self.unknown[partition] = unknown


def posts_checks(source: Source, *, due_hour_utc: int) -> dg.AssetChecksDefinition:
    """Return the checks of a raw asset over its whole lake; those on what is missing run daily at the due hour."""

    def evaluate(later: LaterReportingResource, selected: Set[str]) -> Iterator[dg.AssetCheckResult]:
        lake = later.lake()
        findings = PostsFindings(source)
        files: dict[date, set[str]] = {}
        read_rows = bool(_READING_ROWS & selected)
        for partition in lake.partitions(source.asset):
            files.setdefault(partition.day, set()).add(str(partition.instance_id))
            if read_rows:
                # Each file itself, never a compacted copy: whether it is damaged is part of the check.
                try:
                    findings.add(partition, lake.read(source.asset, [partition], schema=POSTS_SCHEMA))
                except PartitionDamaged:
                    findings.damaged[partition] = 1
        return evaluate_posts(
            findings,
            lake=lake,
            instances=known_instances(lake, named=later.named_instances()),
            files=files,
            due_hour_utc=due_hour_utc,
        )

    return checks_of(
        dg.AssetKey(["later", source.asset]),
        POSTS_CHECKS,
        evaluate=evaluate,
        due_hour_utc=due_hour_utc,
        daily=[EVERY_INSTANCE, NEWEST_DUE_DAY],
    )


def settlement_checks(*, settled_after_days: int, due_hour_utc: int) -> dg.AssetChecksDefinition:
    """Return the check between the two raw assets, run daily at the due hour."""

    def evaluate(later: LaterReportingResource, _selected: Set[str]) -> Iterator[dg.AssetCheckResult]:
        found = settlement(later.lake(), settled_after_days=settled_after_days, memory_gb=later.memory_limit_gb())
        yield evaluate_settlement(found, settled_after_days=settled_after_days)

    return checks_of(
        dg.AssetKey(["later", POSTS_PUBLISHED.asset]),
        SETTLEMENT_CHECKS,
        evaluate=evaluate,
        due_hour_utc=due_hour_utc,
        daily=[DAYS_ADD_UP],
        name=f"{POSTS_PUBLISHED.asset}_settlement",
        deps=[dg.AssetKey(["later", POST_METRICS_DAILY.asset])],
    )


def evaluate_posts(
    findings: PostsFindings, *, lake: Lake, instances: Sequence[str], files: Files, due_hour_utc: int
) -> Iterator[dg.AssetCheckResult]:
    """Yield the results of `POSTS_CHECKS`.

    Args:
        findings: what is wrong in the files that were read.
        lake: read for what lies in quarantine.
        instances: those that should be there.
        files: all files of the table.
        due_hour_utc: the hour at which the previous day is due.
    """
    findings.examine()
    read = {"files": findings.files, "rows": findings.rows}
    yield _evaluate_rows(ROWS_UNIQUE, findings.duplicates, "rows repeat a key", read)
    if findings.damaged:
        yield _evaluate_rows(ROWS_BELONG, findings.damaged, "files cannot be read", read)
    else:
        yield _evaluate_rows(ROWS_BELONG, findings.outside, "rows belong to another file", read)
    yield _evaluate_rows(RATES_AGREE, findings.disagreements, "rates contradict their counts", read, severity=_WARN)
    yield evaluate_unknown_fields(findings.unknown, read)
    yield evaluate_quarantine(findings.source.asset, lake=lake)
    yield evaluate_presence(files, instances=instances)
    yield evaluate_freshness(due_day(datetime.now(UTC), due_hour_utc=due_hour_utc), instances=instances, files=files)


def evaluate_unknown_fields(
    found: Mapping[Partition, Mapping[str, int]], read: Mapping[str, int]
) -> dg.AssetCheckResult:
    """Return which unknown fields came, and where; they lie in `extra`, nothing is lost."""
    rows: Counter[str] = Counter()
    for names in found.values():
        rows.update(names)
    return dg.AssetCheckResult(
        check_name=NO_UNKNOWN_FIELDS,
        passed=not rows,
        description=(
            f"{first_of(sorted(rows))} came, in {first_of(_names(found))}"
            if rows
            else f"All {read['rows']} rows of {read['files']} files"
        ),
        metadata={**read, **({"unknown": dg.MetadataValue.json(dict(sorted(rows.items())))} if rows else {})},
        severity=_WARN,
    )


def evaluate_quarantine(asset: str, *, lake: Lake) -> dg.AssetCheckResult:
    """Return whether any row of `asset` lies in quarantine, and the reasons."""
    reasons = Counter(row.reason for row in lake.quarantine.rows(asset))
    count = reasons.total()
    return dg.AssetCheckResult(
        check_name=QUARANTINE_EMPTY,
        passed=not count,
        description=f"{count} rows lie in quarantine: see `later-reporting quarantine`" if count else "Empty",
        metadata={"rows": count, **({"reasons": dg.MetadataValue.json(dict(reasons))} if reasons else {})},
        severity=_WARN,
    )


def evaluate_presence(files: Files, *, instances: Sequence[str]) -> dg.AssetCheckResult:
    """Return whether every day that has files has one of each instance, and the days that each instance lacks."""
    missing = {
        name: days for name in instances if (days := [day for day, there in sorted(files.items()) if name not in there])
    }
    count = sum(map(len, missing.values()))
    shown = {name: day_ranges(days) for name, days in missing.items()}
    return dg.AssetCheckResult(
        check_name=EVERY_INSTANCE,
        passed=not missing,
        description=(
            f"{count} files are missing: {first_of([f'{name}: {first_of(days)}' for name, days in shown.items()])}."
            " Materialize these days, with `only_missing` in the run config to fetch nothing else"
            if missing
            else f"All {len(instances)} instances on {len(files)} days"
        ),
        metadata={
            "missing_files": count,
            "instances": len(instances),
            "days": len(files),
            **({"missing": dg.MetadataValue.json(shown)} if missing else {}),
        },
    )


def evaluate_freshness(due: date, *, instances: Sequence[str], files: Files) -> dg.AssetCheckResult:
    """Return whether the day `due` has a file of each instance, and of which it has none."""
    there = files.get(due, ())
    missing = [name for name in instances if name not in there]
    passed = bool(there) and not missing
    return dg.AssetCheckResult(
        check_name=NEWEST_DUE_DAY,
        passed=passed,
        description=(
            f"{due} is there for all {len(instances)} instances"
            if passed
            else f"{due} is missing for {first_of(missing)}: materialize it"
            if missing
            else f"{due} is missing: materialize it"
        ),
        metadata={"due_day": str(due), "missing_instances": len(missing), "instances": len(instances)},
    )


def evaluate_settlement(found: Settlement, *, settled_after_days: int) -> dg.AssetCheckResult:
    """Return whether the days of settled posts add up to their metrics to date, each difference as a number to plot."""
    differing = [name for name, sums in found.sums.items() if not sums.agree]
    if not found.posts:
        description = (
            f"No post is settled yet: one is, once it and each of the {settled_after_days} days after it are in both"
            " tables"
        )
    elif differing:
        description = f"{', '.join(differing)} of {found.posts} settled posts differ by over {TOLERANCE_PERCENT:g} %"
    else:
        description = f"The days of {found.posts} settled posts add up to their metrics to date"
    metadata: dict[str, Any] = {"posts": found.posts, "posts_that_differ": found.posts_that_differ}
    for name, sums in found.sums.items():
        if sums.difference_percent is not None:
            metadata[f"difference_percent/{name}"] = round(sums.difference_percent, 6)
    metadata["sums"] = dg.MetadataValue.json(
        {name: {"sum_of_days": sums.of_days, "to_date": sums.to_date} for name, sums in found.sums.items()}
    )
    return dg.AssetCheckResult(
        check_name=DAYS_ADD_UP, passed=not differing, description=description, metadata=metadata, severity=_WARN
    )


def _evaluate_rows(
    check: str,
    found: Counter[Partition],
    what: str,
    read: Mapping[str, int],
    *,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
) -> dg.AssetCheckResult:
    found = +found  # without those of which there are none
    count = found.total()
    return dg.AssetCheckResult(
        check_name=check,
        passed=not count,
        description=(
            f"{count} {what}, in {first_of(_names(found))}"
            if count
            else f"All {read['rows']} rows of {read['files']} files"
        ),
        metadata={**read, "found": count},
        severity=severity,
    )


def _names(partitions: Collection[Partition]) -> list[str]:
    return [str(partition) for partition in sorted(partitions)]
