"""Verdicts: what must hold of the tables, decided from what lies in the lake and told to Dagster.

The assets tell the verdicts of their own runs themselves; the check definitions ask the same questions of the whole
lake.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg

from later_reporting_dagster.contract import DateBasis
from later_reporting_dagster.defs.checks import (
    NEWEST_DUE_DAY,
    NO_UNKNOWN_FIELDS,
    QUARANTINE_EMPTY,
    RATES_AGREE,
    RECONCILES,
    ROWS_BELONG,
    ROWS_UNIQUE,
)
from later_reporting_dagster.defs.partitions import partition_key
from later_reporting_dagster.ingest.quality import duplicate_keys, rates_that_disagree, rows_outside, unknown_fields
from later_reporting_dagster.ingest.source import Source
from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, Partition, PartitionDamaged

NAMED_PARTITIONS = 20


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of a check, before Dagster hears of it."""

    check: str
    passed: bool
    description: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR

    def evaluation(self, asset_key: dg.AssetKey) -> dg.AssetCheckEvaluation:
        """As an event that an asset logs of itself."""
        return dg.AssetCheckEvaluation(**self._told_of(asset_key))

    def result(self, asset_key: dg.AssetKey) -> dg.AssetCheckResult:
        """As the result of a check's own step."""
        return dg.AssetCheckResult(**self._told_of(asset_key))

    def _told_of(self, asset_key: dg.AssetKey) -> dict[str, Any]:
        return {
            "asset_key": asset_key,
            "check_name": self.check,
            "passed": self.passed,
            "description": self.description,
            "metadata": dict(self.metadata),
            "severity": self.severity,
        }


class PostsFindings:
    """What is wrong in partitions of posts, gathered one partition at a time."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.partitions = 0
        self.rows = 0
        self.duplicates: dict[Partition, int] = {}
        self.strangers: dict[Partition, int] = {}
        self.disagreements: dict[Partition, dict[str, int]] = {}
        self.unknown: dict[Partition, dict[str, int]] = {}
        self.damaged: dict[Partition, int] = {}

    def add(self, partition: Partition, posts: Any) -> None:
        """Looks at the rows of one partition, an Arrow table of posts."""
        self.partitions += 1
        self.rows += posts.num_rows
        if duplicates := duplicate_keys(posts):
            self.duplicates[partition] = duplicates
        if strangers := rows_outside(posts, partition=partition, date_basis=self.source.date_basis):
            self.strangers[partition] = strangers
        if disagreements := rates_that_disagree(posts):
            self.disagreements[partition] = disagreements
        if unknown := unknown_fields(posts):
            self.unknown[partition] = unknown


def posts_verdicts(
    findings: PostsFindings, *, lake: Lake, instances: Sequence[str], now: datetime, due_hour_utc: int
) -> Iterator[Verdict]:
    """The verdicts on a raw asset, in the order of `POSTS_CHECKS`."""
    looked_at = {"partitions": findings.partitions, "rows": findings.rows}
    yield _rows_verdict(ROWS_UNIQUE, findings.duplicates, "rows repeat a key", looked_at)
    if findings.damaged:
        yield _rows_verdict(ROWS_BELONG, findings.damaged, "files cannot be read", looked_at)
    else:
        yield _rows_verdict(ROWS_BELONG, findings.strangers, "rows belong elsewhere", looked_at)
    disagreeing = {partition: sum(counts.values()) for partition, counts in findings.disagreements.items()}
    yield _rows_verdict(
        RATES_AGREE, disagreeing, "rates contradict their counts", looked_at, severity=dg.AssetCheckSeverity.WARN
    )
    yield unknown_fields_verdict(findings.unknown, looked_at)
    yield quarantine_verdict(findings.source.asset, lake=lake)
    due = due_day(now, due_hour_utc=due_hour_utc)
    present = {partition.instance_id for partition in lake.partitions(findings.source.asset, days=[due])}
    yield freshness_verdict(due, wanted=instances, present=present)


def unknown_fields_verdict(found: Mapping[Partition, Mapping[str, int]], looked_at: Mapping[str, int]) -> Verdict:
    """Whether the contract knows all that came, and by name what it does not; that lies in `extra`, nothing is lost."""
    rows: Counter[str] = Counter()
    for names in found.values():
        rows.update(names)
    return Verdict(
        NO_UNKNOWN_FIELDS,
        passed=not rows,
        description=(
            f"{listed(sorted(rows))} came, in {listed([partition_key(partition) for partition in sorted(found)])}"
            if rows
            else f"All {looked_at['rows']} rows of {looked_at['partitions']} partitions"
        ),
        metadata={**looked_at, **({"unknown": dg.MetadataValue.json(dict(sorted(rows.items())))} if rows else {})},
        severity=dg.AssetCheckSeverity.WARN,
    )


def quarantine_verdict(asset: str, *, lake: Lake) -> Verdict:
    """Whether any row of `asset` lies in quarantine, and the reasons."""
    reasons: dict[str, int] = {}
    for row in lake.quarantined(asset):
        reasons[row.reason] = reasons.get(row.reason, 0) + 1
    count = sum(reasons.values())
    return Verdict(
        QUARANTINE_EMPTY,
        passed=not count,
        description=f"{count} rows lie in quarantine" if count else "Empty",
        metadata={"rows": count, **({"reasons": dg.MetadataValue.json(reasons)} if reasons else {})},
        severity=dg.AssetCheckSeverity.WARN,
    )


def due_day(now: datetime, *, due_hour_utc: int) -> date:
    """The newest day that must be there: yesterday from the due hour on, the day before until then."""
    today = now.astimezone(UTC)
    return today.date() - timedelta(days=1 if today.hour >= due_hour_utc else 2)


def freshness_verdict(due: date, *, wanted: Sequence[str], present: set[str | None]) -> Verdict:
    """Whether the day `due` is there for all `wanted` instances, and for which it is not."""
    missing = [instance_id for instance_id in wanted if instance_id not in present]
    return Verdict(
        NEWEST_DUE_DAY,
        passed=not missing,
        description=(
            f"{due} is missing for {listed(missing)}: materialize it"
            if missing
            else f"{due} is there for all {len(wanted)} instances"
        ),
        metadata={"due_day": str(due), "missing_instances": len(missing), "instances": len(wanted)},
    )


def rolled_up_verdict(due: date, *, present: bool, within: str = "") -> Verdict:
    """Whether the day `due` has been rolled up, or `within` what it is: the week of which day, or the month."""
    what = f"The {within}, with {due} in it," if within else str(due)
    return Verdict(
        NEWEST_DUE_DAY,
        passed=present,
        description=(
            f"{what} is rolled up" if present else f"{what} is not rolled up: materialize it, or see its raw day"
        ),
        metadata={"due_day": str(due)},
    )


def windows_due_verdict(due: date, newest: Mapping[str, date]) -> Verdict:
    """Whether windows end with the day `due` or later, given the newest day of each date basis that has rows."""
    behind = {basis: newest.get(basis) for basis in DateBasis if newest.get(basis, date.min) < due}
    return Verdict(
        NEWEST_DUE_DAY,
        passed=not behind,
        description=(
            f"{due} is not in it by {' and '.join(behind)}: materialize it, or see its raw day"
            if behind
            else f"All windows end with {due} or later"
        ),
        metadata={"due_day": str(due), **{f"newest_day/{basis}": str(day) for basis, day in newest.items()}},
    )


def windows_verdict(differences: Sequence[str], *, is_there: bool = True) -> Verdict:
    """Whether all windows have the totals of their raw rows, and what differs."""
    count = len(differences)
    return Verdict(
        RECONCILES,
        passed=not count,
        description=(
            f"{count} totals differ from their raw rows, as {differences[0]}: materialize it"
            if differences
            else "All windows equal their raw rows"
            if is_there
            else "It is not there yet"
        ),
        metadata={
            "differing_totals": count,
            **({"differences": dg.MetadataValue.json(list(differences))} if differences else {}),
        },
    )


def reconciliation_verdict(differences: Mapping[date, Sequence[str]], *, partitions: int, what: str = "day") -> Verdict:
    """Whether the rolled-up partitions have the totals of their raw rows, and what differs."""
    counted = f"{partitions} {what}{'s' * (partitions != 1)}"
    return Verdict(
        RECONCILES,
        passed=not differences,
        description=(
            f"{len(differences)} of {counted} differ from their raw rows: materialize {listed(sorted(differences))}"
            if differences
            else f"{counted} equal{'s' * (partitions == 1)} {'its' if partitions == 1 else 'their'} raw rows"
        ),
        metadata={
            f"{what}s": partitions,
            "differing": len(differences),
            **(
                {
                    "differences": dg.MetadataValue.json(
                        {str(day): list(differences[day]) for day in sorted(differences)}
                    )
                }
                if differences
                else {}
            ),
        },
    )


def verdicts_on_posts(
    source: Source, *, wanted: Set[str], lake: Lake, instances: Sequence[str], due_hour_utc: int
) -> Iterator[Verdict]:
    """The verdicts on all of a raw asset that lies in the lake; what is not wanted may be asked of no rows."""
    findings = PostsFindings(source)
    if {ROWS_UNIQUE, ROWS_BELONG, RATES_AGREE, NO_UNKNOWN_FIELDS} & wanted:
        # Each file itself, never a compacted copy of it: whether it is damaged is part of the question.
        for partition in lake.partitions(source.asset):
            try:
                findings.add(partition, lake.read(source.asset, [partition], schema=POSTS_SCHEMA))
            except PartitionDamaged:
                findings.damaged[partition] = 1
    return posts_verdicts(
        findings,
        lake=lake,
        instances=instances,
        now=datetime.now(UTC),
        due_hour_utc=due_hour_utc,
    )


def _rows_verdict(
    check: str,
    found: Mapping[Partition, int],
    what: str,
    looked_at: Mapping[str, int],
    *,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
) -> Verdict:
    count = sum(found.values())
    return Verdict(
        check,
        passed=not count,
        description=(
            f"{count} {what}, in {listed([partition_key(partition) for partition in sorted(found)])}"
            if count
            else f"All {looked_at['rows']} rows of {looked_at['partitions']} partitions"
        ),
        metadata={**looked_at, "found": count},
        severity=severity,
    )


def listed(names: Sequence[object]) -> str:
    """The first of some names, and how many more there are."""
    shown = ", ".join(str(name) for name in names[:NAMED_PARTITIONS])
    return f"{shown} and {len(names) - NAMED_PARTITIONS} more" if len(names) > NAMED_PARTITIONS else shown
