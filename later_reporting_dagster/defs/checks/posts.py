"""The checks of the raw assets and of `instances`."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from itertools import chain
from typing import Any

import dagster as dg
import pyarrow as pa

from later_reporting_dagster.contract.days import day_ranges, days_between, newest_day
from later_reporting_dagster.contract.instances import Instances
from later_reporting_dagster.defs.checks.check import WARN, Check, CheckRun, CheckStep, Results, join_first
from later_reporting_dagster.defs.component_base import ComponentBase
from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.lake.coverage import Files, intact_files, recorded_oddities
from later_reporting_dagster.lake.paths import days_by_instance
from later_reporting_dagster.lake.tables import (
    COVERAGE_TABLE,
    INSTANCES_TABLE,
    POST_METRICS_DAILY,
    POSTS_NAMES,
    POSTS_PUBLISHED,
    RAW_TABLES,
    RawTable,
)
from later_reporting_dagster.quality.data_quality import (
    CONTRADICTORY,
    OF_OTHER_FILES,
    REPEATED_KEYS,
    UNREADABLE,
    find_problems,
)
from later_reporting_dagster.quality.instances import (
    RETIRE,
    describe_not_expected,
    describe_unlisted,
    load_instances,
    stored_instances,
)
from later_reporting_dagster.quality.late_posts import LatePosts, describe_stale, late_posts
from later_reporting_dagster.quality.missing_files import describe_missing, missing_files
from later_reporting_dagster.quality.outdated import describe_outdated, outdated
from later_reporting_dagster.quality.requested_metrics import (
    days_without_metrics,
    describe_days_without,
    requested_days,
)
from later_reporting_dagster.rollups.raw_reconciliation import SETTLED_METRICS, TOLERANCE_PERCENT, sum_settled_posts
from later_reporting_dagster.rollups.rollup_tables import POSTS

ROWS_UNIQUE = Check("rows_unique_by_key", "No two rows of a file share their key.")
ROWS_BELONG = Check("rows_belong_to_partition", "Each file can be read, and its rows belong to its instance and day.")
RATES_AGREE = Check(
    "rates_agree_with_counts",
    "Engagement rate, CPE and CPM agree with the counts in the same row, within rounding.",
    severity=WARN,
)
NO_UNKNOWN_FIELDS = Check(
    "no_unknown_fields", "The API returned no unknown fields and no unknown content types.", severity=WARN
)
AS_DOCUMENTED = Check(
    "responses_are_as_documented",
    "The responses of the last days were as the API reference describes them. Otherwise they were read all the same.",
    severity=WARN,
    nothing="No fetch is recorded",
)
QUARANTINE_EMPTY = Check("quarantine_is_empty", "The API returned no invalid rows.", severity=WARN)
EVERY_INSTANCE = Check(
    "every_instance_is_present",
    "Every day from the start date to the newest day that is due has a file of every instance.",
    nothing="No day is due yet",
    is_daily=True,
)
DUE_DAY = Check(
    "newest_due_day_is_present",
    "The newest day that is due has a file of every instance. The two newest days lack TikTok posts, which the API"
    " returns about 48 hours after their publication.",
    nothing="No day is due yet",
    is_daily=True,
)
# Of tables whose route the API may refuse to an account.
EVERY_INSTANCE_IF_ANY, DUE_DAY_IF_ANY = (
    replace(check, description=description, severity=WARN, nothing="Not fetched yet")
    for check, description in {
        EVERY_INSTANCE: "Every day from the start date to the newest day that is due has a file of every instance,"
        " unless the API refuses the route.",
        DUE_DAY: "The newest day that is due has its files, unless the API refuses the route.",
    }.items()
)
NOT_STALE = Check(
    "no_file_is_stale",
    "The file of each day that is no longer restated has every post with results that was published on it, as far as"
    " the API has sent them. A stale file is fetched again. A post that is then still absent is withdrawn, and asked"
    " for no more.",
    nothing="No file is that old yet",
    is_daily=True,
    needs=(*POSTS_NAMES, COVERAGE_TABLE, POSTS.name),
)
METRICS_REQUESTED = Check(
    "files_have_requested_metrics",
    "Each file with rows was requested with all metrics that are requested now. Sums lack a metric on days that were"
    " requested without it.",
    severity=WARN,
    nothing="No file of coverage was looked at yet",
    is_daily=True,
    needs=(COVERAGE_TABLE,),
)
STILL_LISTED = Check(
    "every_instance_is_still_listed",
    "The API still lists every instance that it has listed before or that has files, unless it is retired. If"
    " LATER_INSTANCE_IDS is set, only the instances in it are checked.",
    severity=WARN,
    nothing="Not materialized yet",
    is_daily=True,
)
STILL_FETCHED = Check(
    "every_instance_in_the_numbers_is_fetched",
    "LATER_INSTANCE_IDS, if it is set, names every instance that has files and is not retired. Others stay in the"
    " numbers, and their newest days are missing from totals of all instances.",
    severity=WARN,
    nothing="No instance has files yet",
    is_daily=True,
)
DAYS_ADD_UP = Check(
    "days_add_up_to_metrics_to_date",
    "The days of post_metrics_daily add up to the metrics to date, for posts old enough to be settled.",
    severity=WARN,
    nothing=(
        f"No post of these days is settled yet. A post is settled when {POST_METRICS_DAILY.name} has every day since"
        f" its publication, at least as many as are restated, and {POSTS_PUBLISHED.name} has the day of its publication"
    ),
    is_daily=True,
    needs=POSTS_NAMES,
)
# The problems in files that each of these checks counts.
_PROBLEMS: Mapping[Check, Sequence[str]] = {
    ROWS_UNIQUE: [REPEATED_KEYS],
    ROWS_BELONG: [UNREADABLE, OF_OTHER_FILES],
    RATES_AGREE: [CONTRADICTORY],
}
_LISTING = ("instance_id", "listed_now")
_CHECKS_OF_FILES = (*_PROBLEMS, NO_UNKNOWN_FIELDS)


def _checks_of(table: RawTable) -> Iterator[Check]:
    """Yield the checks of a table that read no other, but for `coverage`, which is made later."""
    if table.has_file_per_instance:
        yield from (ROWS_UNIQUE, ROWS_BELONG, *([RATES_AGREE] if table.has_rates_of_counts else []), NO_UNKNOWN_FIELDS)
        yield AS_DOCUMENTED
    yield QUARANTINE_EMPTY
    if table.has_file_per_instance:
        yield EVERY_INSTANCE_IF_ANY if table.is_optional else EVERY_INSTANCE
    yield DUE_DAY_IF_ANY if table.is_optional else DUE_DAY
    yield METRICS_REQUESTED


def _evaluate_raw_table(raw_table: RawTable, run: CheckRun) -> Results:
    """Evaluate the checks of a raw asset. The two for missing files look at all days in any run."""
    if run.has(*_CHECKS_OF_FILES):
        yield from _evaluate_rows(raw_table, run)
    if run.has(QUARANTINE_EMPTY):
        yield from evaluate_quarantine(raw_table.name, run)
    if run.has(AS_DOCUMENTED):
        yield from _evaluate_responses(raw_table.name, run)
    if run.has(EVERY_INSTANCE, DUE_DAY):
        yield from _evaluate_files(raw_table, run)
    if run.has(METRICS_REQUESTED):
        yield _evaluate_metrics(raw_table, run)


def _evaluate_settlement(run: CheckRun) -> Results:
    # Not the old days: a post is compared with all days since. The daily run of checks does that.
    groups: list[Collection[date] | None] = [days_between(*run.partitions) if run.partitions else None]
    if failed := run.failed_days(POSTS_PUBLISHED.name, DAYS_ADD_UP):
        groups.append(failed)
    sums = [
        sum_settled_posts(
            run.later.lake(),
            settled_after_days=run.component.lookback_days,
            memory_gb=run.later.memory_gb,
            published=published,
        )
        for published in groups
    ]
    yield evaluate_settled_posts(*sums)


def _evaluate_staleness(run: CheckRun) -> Results:
    yield evaluate_staleness(run.later.lake(), run.component)


def evaluate_staleness(lake: Lake, component: ComponentBase) -> dg.AssetCheckResult:
    """Evaluate whether files lack posts, by the table of posts. Its step does so in runs that do not have the check."""
    now = component.now()
    days = component.settled_days(now)
    late = late_posts(lake, days=days)
    rollups = component.rollups([POSTS])
    if not late.unknown and (
        found := outdated(lake, rollups, start_date=component.start_date, newest_day=newest_day(now))
    ):
        late = replace(late, unknown=f"outdated: {describe_outdated(found)}")
    return evaluate_late_posts(late, files=len(lake.partitions(POSTS_PUBLISHED.name, days={*days})))


def _evaluate_metrics(raw_table: RawTable, run: CheckRun) -> dg.AssetCheckResult:
    """As of the last update of `coverage`."""
    component = run.component
    requested = [each for each in requested_days(run.later.lake()) if each.table_name == raw_table.name]
    lacking = days_without_metrics(
        requested, component.metrics_of(raw_table), days={*component.expected_days(component.now())}
    )
    return METRICS_REQUESTED.result(
        not lacking,
        describe_days_without(lacking),
        otherwise="All files with rows were requested with all metrics",
        looked_at={"days": len({each.day for each in requested})},
        lacking=dg.MetadataValue.json({name: day_ranges(days) for name, days in lacking.items()}),
    )


def _evaluate_instances(run: CheckRun) -> Results:
    lake = run.later.lake()
    files = {name: lake.file_versions(name) for name in POSTS_NAMES}
    instances = load_instances(lake, configured=run.later.configured_instances(), files=files)
    if run.has(STILL_LISTED):
        yield evaluate_listing(stored_instances(lake), instances)
    if run.has(STILL_FETCHED):
        yield evaluate_fetched(instances, files=files)


POSTS_STEPS = (
    *(
        CheckStep(
            name=f"{raw_table.name}_checks",
            checks={raw_table.name: [*_checks_of(raw_table)]},
            evaluate=partial(_evaluate_raw_table, raw_table),
        )
        for raw_table in RAW_TABLES.values()
    ),
    CheckStep(
        name=f"{POSTS_PUBLISHED.name}_settlement",
        checks={POSTS_PUBLISHED.name: [DAYS_ADD_UP]},
        evaluate=_evaluate_settlement,
        deps=[POST_METRICS_DAILY.name],
    ),
    CheckStep(
        name=f"{POSTS_PUBLISHED.name}_staleness",
        checks={POSTS_PUBLISHED.name: [NOT_STALE]},
        evaluate=_evaluate_staleness,
        deps=[POSTS.name, COVERAGE_TABLE],
    ),
    CheckStep(
        name=f"{INSTANCES_TABLE}_checks",
        checks={INSTANCES_TABLE: [STILL_LISTED, STILL_FETCHED]},
        evaluate=_evaluate_instances,
    ),
)


def evaluate_late_posts(late: LatePosts, *, files: int) -> dg.AssetCheckResult:
    """Evaluate whether the lake contradicts files. The metadata has the withdrawn posts by day and instance.

    Files that are known to be stale fail it also if others may be.
    """
    otherwise = f"None of {files} files is stale"
    return NOT_STALE.result(
        not late.stale,
        f"{describe_stale(late.stale)}. The sensor of the instances fetches them; or materialize these days",
        otherwise=f"It cannot look: {late.unknown}" if late.unknown else otherwise,
        looked_at={"files": files},
        stale_files=len(late.stale),
        withdrawn=dg.MetadataValue.json(
            {str(partition): late.withdrawn[partition] for partition in sorted(late.withdrawn)}
        ),
    )


def evaluate_listing(rows: pa.Table | None, instances: Instances) -> dg.AssetCheckResult:
    """Evaluate whether the API still lists every expected instance, as the stored dimension says."""
    listed_now = {} if rows is None else dict(zip(*(rows[name].to_pylist() for name in _LISTING), strict=True))
    checked = [name for name in listed_now if name in instances.expected]
    unlisted = [name for name in checked if listed_now[name] is False]
    is_known = all(listed_now[name] is not None for name in checked)
    listed = f"All known instances{' of LATER_INSTANCE_IDS' * bool(instances.configured)} are listed: {len(checked)}"
    return STILL_LISTED.result(
        not unlisted,
        describe_unlisted(unlisted),
        otherwise=listed if is_known else "Not known: the API does not say which instances it lists",
        looked_at={"instances": len(instances.marks.in_numbers(listed_now))},
        no_longer_listed=len(unlisted),
    )


def evaluate_fetched(instances: Instances, *, files: Files) -> dg.AssetCheckResult:
    """Evaluate whether every instance in the numbers is still fetched."""
    return STILL_FETCHED.result(
        not instances.not_expected,
        describe_not_expected(instances, files=files),
        otherwise=f"All {len(instances.in_numbers)} instances in the numbers are fetched",
        looked_at={"instances": len(instances.in_numbers)},
        no_longer_fetched=len(instances.not_expected),
    )


def _evaluate_rows(raw_table: RawTable, run: CheckRun) -> Results:
    """Read files, and yield the results of the checks of their rows."""
    lake = run.later.lake()
    days = run.days(raw_table.name, *_CHECKS_OF_FILES)
    found, looked_at = find_problems(lake, raw_table, lake.partitions(raw_table.name, days=days))
    otherwise = f"All {looked_at['rows']} rows of {looked_at['files']} files"
    for check, problems in _PROBLEMS.items():
        counts = {problem: files_with for problem in problems if (files_with := found.pop(problem, None))}
        lines = [f"{each.total()} {problem}, in {_names(each)}" for problem, each in counts.items()]
        days = {file.day for file in chain(*counts.values())}
        # A rate that contradicts its counts is the API's.
        step = _fetch_again(raw_table.name, days) if check.severity is not WARN else ""
        yield check.result(
            not counts, "; ".join(lines) + step, otherwise=otherwise, looked_at=looked_at, failed_days=days
        )
    fields, files = {name: found[name].total() for name in sorted(found)}, {*chain(*found.values())}
    yield NO_UNKNOWN_FIELDS.result(
        not fields,
        f"Unknown fields or content types: {join_first([*fields])}, in {_names(files)}",
        otherwise=otherwise,
        looked_at=looked_at,
        failed_days={file.day for file in files},
        unknown=dg.MetadataValue.json(fields),
    )


def _fetch_again(table_name: str, days: Collection[date]) -> str:
    """Return the next step, as the end of a message, of days whose files are wrong."""
    if not days:
        return ""
    return f". Next step: `later-reporting backfill --asset {table_name} --start {min(days)} --end {max(days)}`"


def _evaluate_responses(table_name: str, run: CheckRun) -> Results:
    oddities, runs = recorded_oddities(run.later.lake(), table_name)
    yield AS_DOCUMENTED.result(
        not oddities,
        "Read in spite of this: " + join_first([f"{kind} ({count})" for kind, count in oddities.most_common()]),
        otherwise=f"Nothing was odd in {runs} runs",
        looked_at={"runs": runs},
        oddities=dg.MetadataValue.json(dict(oddities)),
    )


def evaluate_quarantine(table_name: str, run: CheckRun) -> Results:
    """Yield the result of the check of rows in quarantine of any table."""
    reasons = Counter(row.reason for row in run.later.lake().quarantine.rows(table_name))
    count = reasons.total()
    yield QUARANTINE_EMPTY.result(
        not count,
        f"{count} rows in quarantine: see `later-reporting quarantine`",
        otherwise="Empty",
        rows=count,
        reasons=dg.MetadataValue.json(dict(reasons)),
    )


def _evaluate_files(table: RawTable, run: CheckRun) -> Results:
    """Yield the results of the checks for missing files, from a listing of all files."""
    lake, checks = run.later.lake(), {check.name: check for check in _checks_of(table)}
    files = intact_files(lake, [table.name])
    present = files[table.name]
    days = run.component.expected_days(run.component.now()) if table.is_expected(files=present) else []
    instances = run.instances or sorted(
        load_instances(lake, configured=run.later.configured_instances(), files=files).expected
    )
    missing = missing_files(table.name, days=days, instances=instances, present=present)
    due = checks[DUE_DAY.name]
    if not table.has_file_per_instance:
        yield evaluate_newest_due_day(missing, days=days, instances=[None], check=due)
        return
    problem = f"No instance is known: materialize {INSTANCES_TABLE}"
    if instances:
        problem = (
            f"{describe_missing(missing, instances=len(instances))}. Materialize these days; set `only_missing` in the"
            f" run config to fetch nothing else. An instance that is gone for good: {RETIRE}"
        )
    yield checks[EVERY_INSTANCE.name].result(
        not missing and bool(instances or not days),
        problem,
        otherwise=f"All {len(instances)} instances on {len(days)} days",
        looked_at={"instances": len(instances) if days else 0, "days": len(days)},
        missing_files=len(missing),
        missing=dg.MetadataValue.json(
            {str(name): day_ranges(each) for name, each in days_by_instance(missing).items()}
        ),
    )
    yield evaluate_newest_due_day(missing, days=days, instances=instances, check=due)


def evaluate_newest_due_day(
    missing: Iterable[Partition], *, days: Sequence[date], instances: Sequence[str | None], check: Check
) -> dg.AssetCheckResult:
    """Evaluate whether the newest expected day has a file of each instance; if none is known, it has no file.

    The instance None stands for all, whose rows are in one file.
    """
    due = days[-1] if days else None
    lacking = [file.instance_id for file in missing if file.day == due]
    named = [name for name in lacking if name is not None]
    return check.result(
        not due or (bool(instances) and not lacking),
        f"{due} is missing{f' for {join_first(named)}' if named else ''}: materialize it",
        otherwise=f"{due} has {'its file' if None in instances else f'files of all {len(instances)} instances'}",
        looked_at={"instances": len(instances) if due else 0},
        due_day=str(due),
        missing_instances=len(lacking),
    )


def evaluate_settled_posts(*groups: Mapping[str, Any]) -> dg.AssetCheckResult:
    """Evaluate the sum of days and the sum to date of each metric over all settled posts of each group.

    The metadata has each difference, in percent: of the first group that differs, or else of the largest.
    """
    failing = [sums for sums in groups if _metrics_that_differ(sums)]
    sums = failing[0] if failing else max(groups, key=lambda each: int(each["posts"]))
    totals, percents = _settled_totals(sums), {}
    for name, (of_days, to_date) in totals.items():
        difference = (of_days or 0.0) - (to_date or 0.0)
        if of_days is not None and to_date is not None and (to_date or not difference):
            percents[f"difference_percent/{name}"] = round(100 * difference / (to_date or 1.0), 6)
    return DAYS_ADD_UP.result(
        not failing,
        f"{', '.join(_metrics_that_differ(sums))} of {sums['posts']} settled posts differ by over"
        f" {TOLERANCE_PERCENT} %",
        otherwise=f"The days of {sums['posts']} settled posts add up to their metrics to date",
        looked_at={"posts": sums["posts"]},
        failed_days=chain(*(each["days_that_differ"] for each in failing)),
        posts_that_differ=sums["posts_that_differ"],
        **percents,
        sums=dg.MetadataValue.json(
            {name: {"sum_of_days": of_days, "to_date": to_date} for name, (of_days, to_date) in totals.items()}
        ),
    )


def _metrics_that_differ(sums: Mapping[str, Any]) -> list[str]:
    """Return the metrics whose sums differ. A sum of no values counts as 0: a day without a row may be null or 0."""
    return [
        name
        for name, (of_days, to_date) in _settled_totals(sums).items()
        if abs((of_days or 0.0) - (to_date or 0.0)) > abs(to_date or 0.0) * TOLERANCE_PERCENT / 100
    ]


def _settled_totals(sums: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (sums[f"{name}_of_days"], sums[f"{name}_to_date"]) for name in SETTLED_METRICS}


def _names(partitions: Collection[Partition]) -> str:
    return join_first([str(partition) for partition in sorted(partitions)])
