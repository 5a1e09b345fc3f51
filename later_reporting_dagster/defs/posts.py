"""The raw assets: posts as the API returns them, partitioned by UTC day, with one file per day and instance."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext
from pydantic import Field

from later_reporting_dagster.client import LaterError
from later_reporting_dagster.contract import DateBasis
from later_reporting_dagster.contract.days import parse_day_ranges
from later_reporting_dagster.defs.asset_steps import AssetStep
from later_reporting_dagster.defs.checks import log_check_results
from later_reporting_dagster.defs.materializations import already_logged, combined_failure, log_materialization
from later_reporting_dagster.defs.metadata import (
    API_REFERENCE_URL,
    code_references,
    code_version,
    preview,
    table_metadata,
)
from later_reporting_dagster.defs.partitions import build_partitions_def, partition_first_days
from later_reporting_dagster.defs.posts_checks import evaluate_files
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.defs.settings import DefinitionSettings
from later_reporting_dagster.ingest.background_stream import stream
from later_reporting_dagster.ingest.daily_fetch import (
    DayResult,
    DayResults,
    FetchPlan,
    NoInstances,
    day_version,
    fetch_days,
)
from later_reporting_dagster.ingest.instance_dimension import known_instances
from later_reporting_dagster.ingest.partition_writer import PartitionResult, WrittenPartition
from later_reporting_dagster.ingest.progress import Progress, ProgressReporter
from later_reporting_dagster.lake import LakeUnavailable, Partition, post_columns
from later_reporting_dagster.lake.raw_tables import RawTable
from later_reporting_dagster.rollups.periods import Period

# docs/api.md, "Date basis"
_DESCRIPTIONS = {
    DateBasis.PERFORMANCE_DATE: (
        "The metrics that posts of any age recorded on the day: one row per post and campaign"
        " (`dateBasis=performance_date`). Days can be summed."
    ),
    DateBasis.POST_DATE: (
        "The posts published on the day, with their metrics to date (`dateBasis=post_date`)."
        " Metrics keep changing for weeks, so the newest days are fetched again every day."
    ),
}


class PostsConfig(dg.Config):
    """Run config of a fetch; by default it fetches every instance of the selected days."""

    instances: list[str] = Field(
        default_factory=list,
        description="Fetch only these instances. Empty: the instances in LATER_INSTANCE_IDS, else all that the API"
        " lists.",
    )
    pairs: dict[str, list[str]] = Field(
        default_factory=dict,
        description="Fetch only these days of these instances, such as {instance_000: [2024-01-03, 2024-01-05 to"
        " 2024-01-09]}. Days outside of the run's partitions are ignored.",
    )
    only_missing: bool = Field(
        default=False, description="Fetch only the (day, instance) pairs that have no file in the lake."
    )
    accept_shrinking: bool = Field(
        default=False,
        description="Also replace files that lose more posts than LATER_SHRINK_LIMIT_PERCENT allows, or all values of"
        " their metrics. Use it if posts or values were really deleted.",
    )


def posts_step(raw_table: RawTable, settings: DefinitionSettings) -> AssetStep:
    """Return the step of a raw asset. A backfill of any number of days is one run.

    If an instance fails, the other instances of the day are written, the day is materialized with `missing_instances`
    in its metadata, and the run fails at its end with the (day, instance) pairs that failed.
    """

    def run(context: AssetExecutionContext, later: LaterReportingResource) -> Iterator[dg.MaterializeResult[Any]]:
        config = PostsConfig(**context.op_execution_context.op_config)
        try:
            _PostsFetch(context, config, later, raw_table=raw_table, settings=settings).run()
        except (NoInstances, LaterError, LakeUnavailable) as error:
            # The message is complete; a stack trace would hide it.
            raise dg.Failure(f"The fetch stopped: {error}", allow_retries=False) from None
        yield already_logged(context)

    columns = post_columns(settings.metrics)
    spec = dg.AssetSpec(
        settings.asset_key(raw_table.name),
        description=_DESCRIPTIONS[raw_table.date_basis],
        group_name="posts",
        kinds={"parquet"},
        tags={"later/layer": "raw", "later/date_basis": str(raw_table.date_basis)},
        partitions_def=build_partitions_def(Period.DAY, settings.start_date),
        metadata={
            **table_metadata(settings.asset_key(raw_table.name), columns),
            **code_references(posts_step),
            "api_reference": dg.MetadataValue.url(API_REFERENCE_URL),
        },
        code_version=code_version(columns),
        freshness_policy=settings.freshness,
    )
    return AssetStep(
        name=settings.op_name(raw_table.name),
        specs=[spec],
        run=run,
        config=PostsConfig,
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=settings.pool,
    )


class _PostsFetch:
    """One run of a raw asset: fetches its days, and logs each day once all of its instances are done."""

    def __init__(
        self,
        context: AssetExecutionContext,
        config: PostsConfig,
        later: LaterReportingResource,
        *,
        raw_table: RawTable,
        settings: DefinitionSettings,
    ) -> None:
        self._context = context
        self._config = config
        self._later = later
        self._raw_table = raw_table
        self._settings = settings
        self._lake = later.lake()
        self._progress = Progress(raw_table.name)
        self._reporter = ProgressReporter(self._progress, log=context.log.info, warn=context.log.warning)
        # The instances that have a file, by day.
        self._instances_by_day: dict[date, set[str]] = {}
        # The instances that each day should have.
        self._expected: tuple[str, ...] = ()
        self._failed: dict[str, str] = {}
        self._days_materialized = self._files_changed = 0

    def run(self) -> None:
        """Fetch the run's days and log their materializations; if a pair failed, also the checks about missing files.

        Raises:
            Failure: a (day, instance) pair failed, or the run selects no day that can be fetched.
            NoInstances: there is nothing to fetch.
            LaterError: the instances cannot be listed.
            LakeUnavailable: the lake cannot be listed or read.
        """
        days = partition_first_days(self._context)
        pairs = self._selected_pairs()
        if pairs is not None:
            days = sorted({pair.day for pair in pairs}.intersection(days))
            if not days:
                raise dg.Failure("Run config pairs: no day of them is a partition of this run", allow_retries=False)
        for event in self._events(days, pairs):
            if isinstance(event, FetchPlan):
                results = self._start(event)
                completed = self._never_materialized(results.days_without_pairs())
            else:
                self._record(event)
                day = results.add(event)
                completed = [] if day is None else [day]
            for result in completed:
                self._log_day(result)
        self._log_summary()
        if self._failed:
            missing_files = evaluate_files(
                self._lake, self._raw_table.name, instances=self._expected, settings=self._settings
            )
            log_check_results(self._context, missing_files)
            raise combined_failure(self._failed, what="file", written=self._progress.written)

    def _selected_pairs(self) -> list[Partition] | None:
        """Return the (day, instance) pairs that the run config names; None if it names none.

        Raises:
            Failure: the run config has an invalid day.
        """
        try:
            return [
                Partition(day, name) for name, ranges in self._config.pairs.items() for day in parse_day_ranges(ranges)
            ] or None
        except ValueError as error:
            raise dg.Failure(f"Run config pairs: {error}", allow_retries=False) from None

    def _never_materialized(self, results: Iterable[DayResult]) -> list[DayResult]:
        """Return the days that Dagster does not know although they have files, because a run was killed or is new."""
        known = self._context.instance.get_materialized_partitions(self._context.asset_key)
        return [result for result in results if str(result.day) not in known]

    def _events(self, days: Sequence[date], pairs: Sequence[Partition] | None) -> Iterator[FetchPlan | PartitionResult]:
        """Fetch in a background thread; yield the plan, then the result of each of its (day, instance) pairs."""
        client = self._later.client(on_event=self._reporter.on_event)
        guard = self._later.write_guard(accept_shrinking=self._config.accept_shrinking)
        configured = self._later.configured_instances()

        async def fetch(emit: Callable[[FetchPlan | PartitionResult], None]) -> None:
            async with client:
                await fetch_days(
                    days,
                    instances=tuple(dict.fromkeys(self._config.instances or self._config.pairs)) or configured,
                    only_missing=self._config.only_missing,
                    only_pairs=pairs,
                    table=self._raw_table,
                    client=client,
                    lake=self._lake,
                    emit=emit,
                    guard=guard,
                    metrics=self._settings.metrics,
                )

        yield from stream(fetch)

    def _start(self, plan: FetchPlan) -> DayResults:
        self._progress.partitions = len(plan.pairs)
        for partition in plan.present:
            self._instances_by_day.setdefault(partition.day, set()).add(str(partition.instance_id))
        # If the run is limited to some instances, its plan lacks the others, but a complete day needs them, too.
        known = (
            known_instances(self._lake, configured=self._later.configured_instances())
            if self._config.instances or self._config.pairs
            else ()
        )
        self._expected = tuple(dict.fromkeys([*known, *plan.instances]))
        self._context.log.info(
            f"Fetching {len(plan.pairs)} files: {len(plan.instances)} instances, {plan.days[0]} to {plan.days[-1]}"
            + ", only missing files" * self._config.only_missing
        )
        return DayResults(plan)

    def _record(self, outcome: PartitionResult) -> None:
        """Record the result of one (day, instance) pair."""
        partition = outcome.partition
        if isinstance(outcome, WrittenPartition):
            self._instances_by_day.setdefault(partition.day, set()).add(str(partition.instance_id))
            self._reporter.partition_written(rows=outcome.file.rows)
        else:
            self._failed[str(partition)] = str(outcome.error)
            self._reporter.partition_failed()

    def _log_day(self, result: DayResult) -> None:
        """Log the materialization of a day, unless all of its requested instances failed."""
        if result.failed and not result.written:
            return
        table_name, present = self._raw_table.name, self._instances_by_day.get(result.day, set())
        kept = [Partition(result.day, name) for name in present - result.written.keys()]
        stored = self._lake.read_all_metadata(table_name, kept)
        hashes = {str(partition.instance_id): file.content_hash for partition, file in stored.items()}
        self._days_materialized += 1
        self._files_changed += result.files_changed
        log_materialization(
            self._context,
            result.day,
            data_version=day_version(hashes | result.written),
            metadata={
                "dagster/partition_row_count": result.rows + sum(file.rows for file in stored.values()),
                "dagster/uri": self._lake.day_url(table_name, result.day),
                "instances": len(present),
                "files_changed": result.files_changed,
                **day_metadata(result, missing=[name for name in self._expected if name not in present]),
            },
        )

    def _log_summary(self) -> None:
        progress = self._progress
        self._context.log.info(
            f"{progress.written} of {progress.partitions} files written, {self._files_changed} of them changed;"
            f" {self._days_materialized} days materialized; {progress.rows} rows; {progress.requests} requests,"
            f" {progress.retries} retries, {progress.rate_limit_waits} waits for the rate limit"
        )


def day_metadata(result: DayResult, *, missing: Sequence[str]) -> dict[str, Any]:
    """Return metadata of a fetched day: missing and failed instances, bad rows, and what a restatement changed."""
    failed = {name: str(error) for name, error in sorted(result.failed.items())}
    return {
        **({"missing_instances": dg.MetadataValue.json([*missing])} if missing else {}),
        **({"failed_instances": dg.MetadataValue.json(failed)} if failed else {}),
        **({"bad_rows": result.bad_rows} if result.bad_rows else {}),
        **result.restatement,
        **({} if result.preview is None else {"preview": preview(result.preview)}),
    }
